"""The supervisors from PyPI, in an environment of their own."""

import subprocess
import sys
from pathlib import Path

BUILD = Path(__file__).resolve().parents[1] / ".build" / "supervisors"
SUPERVISOR, CIRCUS = "4.3.0", "0.19.0"


def install() -> None:
    """Install them, unless that was done before."""
    pinned = f"supervisor=={SUPERVISOR} circus=={CIRCUS} setuptools"
    done = BUILD / "installed"
    if done.exists() and done.read_text() == pinned:
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(BUILD)], check=True)
    subprocess.run([program("python"), "-m", "pip", "install", "-q", *pinned.split()], check=True)
    done.write_text(pinned)


def program(name: str) -> str:
    """One of their programs."""
    return str(BUILD / "bin" / name)
