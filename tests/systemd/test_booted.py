"""A real systemd, booted in systemd-nspawn: `booted/`, one test after the other, in a run of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shape.sources import ROOT
from tests.systemd.booted.image import missing

ALL_S = 600.0


@pytest.mark.systemd
@pytest.mark.timeout(ALL_S + 60)
@pytest.mark.skipif(missing() != "", reason=f"a real systemd {missing()}")
def test_on_a_real_systemd(tmp_path: Path) -> None:
    one_by_one = ("-o", "addopts=", "-q", "--durations=5", f"--basetemp={tmp_path / 'booted'}")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *one_by_one, str(Path(__file__).with_name("booted"))],
        cwd=ROOT,
        env={**os.environ, "SUPERVISORD_CP_BOOTED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=ALL_S,
    )
    print(ended.stdout[-2000:])
    assert ended.returncode == 0, ended.stdout[-20_000:]
