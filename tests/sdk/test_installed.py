"""After `pip install .` and after `pip install -e .` the founding document's programs run."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.sdk.programs import Fleet, run
from tests.sdk.test_founding import programs
from tests.shape.sources import ROOT

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

USE = """
import sys
import supervisord_cp
assert "supervisord_cp.sdk" not in sys.modules
import supervisord_cp.policy
assert "supervisord_cp.sdk" not in sys.modules  # a plugin's import does not load it
from control_plane import ControlPlaneManager, ExecutionInstance, RequestMetadata, RequestPriority
import control_plane
from supervisord_cp import ControlPlaneManager as the_same
assert ControlPlaneManager is the_same
assert set(control_plane.__all__) == set(supervisord_cp.__all__) - {"__version__"}
print(control_plane.__file__)
print(supervisord_cp.__file__)
import supervisord_cp.router.flow
print(supervisord_cp.router.flow.__file__)
"""
COMPILES = shutil.which("gcc") is not None and Path(sysconfig.get_path("include"), "Python.h").exists()


@pytest.mark.parametrize("editable", [False, True], ids=["pip install .", "pip install -e ."])
def test_installation(editable: bool, tmp_path: Path, fleet: Fleet) -> None:
    """Dependencies come from the environment that the tests run in."""
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    install(python, *(["-e"] if editable else []), str(ROOT))
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")}))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    used = subprocess.run(
        [python, "-W", "error", "-c", USE], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert used.returncode == 0, used.stderr
    alias, package, flow = used.stdout.split()
    assert Path(alias) == packages / "control_plane/__init__.py"
    assert (packages / "control_plane/py.typed").exists()
    assert Path(package).parent == (ROOT if editable else packages) / "supervisord_cp"
    assert Path(flow).suffix == (".so" if COMPILES and not editable else ".py")
    for name, program in programs().items():
        try:
            run(fleet.patched(program), python)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def install(python: Path, *words: str) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    environment = {**os.environ, "SUPERVISORD_CP_COMPILE": str(int(COMPILES)), "CFLAGS": "-O0"}
    ended = subprocess.run(
        [*pip, "install", "--quiet", "--no-deps", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    if ended.returncode != 0 and re.search("requirement (hatchling|cython)", ended.stderr):
        pytest.skip("the build back end cannot be downloaded here")
    assert ended.returncode == 0, ended.stderr
