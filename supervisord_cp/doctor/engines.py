"""The programs that engines are started with: are they there, and is vLLM in their Python?"""

import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from supervisord_cp.doctor.finding import Finding, error, ok, warning

TIMEOUT_S: Final = 20.0
OLDEST: Final = (0, 9)
VERSION: Final = "import importlib.metadata as m; print(m.version('vllm'))"
"""Does not import vLLM, which takes many seconds."""


def engine_findings(executables: Iterable[str], used: Collection[str] | None = None) -> Iterator[Finding]:
    """One for each program that `[agent.allow] executables` names. `used` are those that deployments name;
    None: they are not known here, any may be needed."""
    for name in executables:
        found = shutil.which(name)
        if found is None and used is not None and name not in used:
            yield ok(name, "is not there; no deployment uses it")
        elif found is None:
            yield error(
                name,
                "is not there, or not executable",
                f"install it (`pip install vllm` in a virtual environment) and name its path, such as "
                f'"/opt/vllm/bin/{Path(name).name}", in [agent.allow] executables and the deployment',
            )
        elif Path(found).name != "vllm":
            yield ok(name, f"{found}")
        else:
            yield _vllm(name, Path(found))


def _vllm(name: str, program: Path) -> Finding:
    python = interpreter_of(program)
    if python is None:
        return warning(
            name, f"{program} names no Python in its first line", "see that it is vLLM's own program"
        )
    if not Path(python).exists():
        return error(
            name,
            f"{program} wants {python}, which is not there: its virtual environment was moved or removed",
            "make the virtual environment anew, and install vllm in it",
        )
    version = _version(python)
    if version is None:
        return error(
            name,
            f"{program} runs {python}, which has no vllm: the wrong Python",
            f"{python} -m pip install vllm, or name the program of the right environment",
        )
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST:
        return warning(name, f"vLLM {version} is older than 0.9", "upgrade it: its metrics have other names")
    return ok(name, f"vLLM {version} ({program})")


def interpreter_of(program: Path) -> str | None:
    """The interpreter in a script's first line; None: it has none."""
    with program.open("rb") as file:
        first = file.readline(512)
    if not first.startswith(b"#!"):
        return None
    words = first[2:].decode(errors="replace").split()
    if not words:
        return None
    if Path(words[0]).name == "env" and len(words) > 1:
        return shutil.which(words[1]) or words[1]
    return words[0]


def _version(python: str) -> str | None:
    try:
        told = subprocess.run(
            [python, "-P", "-c", VERSION],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() if told.returncode == 0 else None
