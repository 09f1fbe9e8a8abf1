"""The last test of all: what the document says removes it, and all of it."""

import re

import pytest

from tests.shape.sources import ROOT
from tests.systemd.booted.fleet import Fleet
from tests.systemd.booted.machine import Machine

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(180)]

PLACES = ("/etc", "/opt", "/run", "/var/lib", "/var/log", "/home")


def documented(heading: str) -> list[str]:
    """The commands of a section's first console, to be typed as root."""
    text = (ROOT / "docs/systemd.md").read_text()
    found = re.search(rf"^## {heading}\n\n```console\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return [line.removeprefix("# ") for line in found.group(1).splitlines()]


def test_what_the_document_says_removes_it(machine: Machine, fleet: Fleet) -> None:
    engines = fleet.ready()
    for command in documented("Uninstall"):
        machine.do("sh", "-c", command)
    for pid in engines.values():
        assert machine.run("ps", "-p", str(pid)).returncode == 1
    assert machine.do("systemctl", "list-units", "--all", "--plain", "--no-legend", "supervisord-cp-*") == ""
    names = ("-name", "*supervisord-cp*", "-not", "-path", "/run/systemd/*")
    assert machine.do("find", *PLACES, *names) == ""
    for user in ("supervisord-cp", "supervisord-cp-engine"):
        assert machine.run("getent", "passwd", user).returncode == 2
        assert machine.run("getent", "group", user).returncode == 2
