"""Compile the modules that have a `.pxd` beside them, with Cython and a C compiler.

    python packaging/compile.py TREE [--into FOLDER]

puts an extension module beside each of them, in TREE (a copy of the source tree, or the source tree itself),
or at the same place under FOLDER. `pip install .` does it by way of the build hook below; an editable
installation is never compiled. $SUPERVISORD_CP_COMPILE: `0` leaves it out, `1` makes it an error when it
cannot be done; otherwise what cannot be compiled is installed as it is. $CC is respected, $CFLAGS is added.

One source serves both. The bases of a class that a `.pxd` declares are for the type checker alone
(`asyncio.Protocol`, `Generic[...]`): they are replaced by those that the `.pxd` names, commonly none.
"""

import argparse
import ast
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

PACKAGE = "supervisord_cp"
SWITCH = "SUPERVISORD_CP_COMPILE"
DIRECTIVES = {
    "always_allow_keywords": True,
    "annotation_typing": False,
    "binding": True,
    "nonecheck": True,
}
"""As Python does it: annotations are for the type checker, and None has no attributes."""
FLAGS = ("-O2", "-g0", "-fPIC", "-shared", "-fwrapv", "-DNDEBUG", "-w")
DECLARED = re.compile(r"^cdef class (\w+)(\(.*\))?:", re.MULTILINE)

SUBSCRIPTED = ["    @classmethod", "    def __class_getitem__(cls, item): return cls"]


class Impossible(Exception):
    """It cannot be compiled here: what is missing, and what to do about it."""


def modules(tree: Path) -> list[Path]:
    """The modules to compile, relative to the tree, the longest first."""
    found = (declared.with_suffix(".py") for declared in (tree / PACKAGE).rglob("*.pxd"))
    return [path.relative_to(tree) for path in sorted(found, key=lambda path: -path.stat().st_size)]


def prepare(source: str, declarations: str) -> str:
    """The source with the bases that its declarations name; every line keeps its number."""
    bases = dict(DECLARED.findall(declarations))
    lines = [*source.splitlines(), "", ""]
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.ClassDef) and node.name in bases and node.bases):
            continue
        first, body, end = node.lineno - 1, node.body[0].lineno - 1, node.end_lineno or 0
        lines[first:body] = [f"class {node.name}{bases[node.name]}:", *[""] * (body - first - 1)]
        if any(isinstance(base, ast.Subscript) for base in node.bases):
            lines[end : end + 2] = SUBSCRIPTED  # where two lines are empty
    return "\n".join(lines)


def compiler() -> list[str]:
    """The C compiler's command.

    Raises:
        Impossible: it, or what it needs, is not there.
    """
    if platform.python_implementation() != "CPython":
        raise Impossible("only CPython runs what is compiled")
    try:
        import Cython  # noqa: F401
    except ImportError:
        raise Impossible("Cython is missing; pip install 'cython>=3.1'") from None
    named = shlex.split(os.environ.get("CC", ""))
    command = named or [name for name in ("gcc", "cc", "clang") if shutil.which(name)][:1]
    if not command or not shutil.which(command[0]):
        what = f"the C compiler {command[0]} ($CC)" if command else "a C compiler"
        raise Impossible(f"{what} is missing; for Debian and Ubuntu: apt install gcc libc6-dev")
    headers = sysconfig.get_path("include")
    if not Path(headers, "Python.h").exists():
        raise Impossible(f"{headers}/Python.h is missing; for Debian and Ubuntu: apt install python3-dev")
    return [*command, *FLAGS, *shlex.split(os.environ.get("CFLAGS", "")), "-I", headers]


def compile_tree(tree: Path, into: Path) -> int:
    """Compile the tree's modules on all cores; gives their number.

    Raises:
        Impossible: something is missing, or a module does not compile.
    """
    command, paths = compiler(), modules(tree)
    # Imported here, once, for all the processes that are forked from this one.
    import Cython.Compiler.Main  # noqa: F401

    with tempfile.TemporaryDirectory(prefix="supervisord-cp-compile-") as folder:
        work = Path(folder)
        for path in paths:
            source, declarations = (tree / path).read_text(), (tree / path).with_suffix(".pxd").read_text()
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).write_text(prepare(source, declarations))
            (work / path).with_suffix(".pxd").write_text(declarations)
            for package in path.parents[:-1]:
                (work / package / "__init__.py").touch()
        one = partial(compile_module, command=command, work=work, into=into.resolve())
        with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("fork")) as pool:
            return sum(1 for _ in pool.map(one, paths))


def compile_module(path: Path, command: list[str], work: Path, into: Path) -> None:
    """Translate one module and compile what comes out; runs in a process of its own."""
    from Cython.Compiler import Main

    os.chdir(work)
    name = ".".join(path.with_suffix("").parts)
    options = Main.CompilationOptions(
        Main.default_options, language_level=3, compiler_directives=DIRECTIVES, include_path=["."]
    )
    if Main.compile(str(path), options, full_module_name=name).num_errors:
        raise Impossible(f"{path} does not compile")
    made = (into / path).with_suffix(sysconfig.get_config_var("EXT_SUFFIX"))
    made.parent.mkdir(parents=True, exist_ok=True)
    argv = [*command, str(path.with_suffix(".c")), "-o", str(made)]
    ended = subprocess.run(argv, stderr=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        said = next((line for line in ended.stderr.splitlines() if "error" in line), ended.stderr.strip())
        raise Impossible(f"{command[0]} ended with {ended.returncode} at {path}: {said or 'it said nothing'}")


def get_build_hook() -> type:
    """What hatchling calls for a wheel."""
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface

    class Compiled(BuildHookInterface):  # type: ignore[type-arg,misc]
        """Adds the extension modules to a wheel, which is then for one Python on one platform."""

        folder: tempfile.TemporaryDirectory[str] | None = None

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Compile, unless the wheel is an editable one.

            Raises:
                SystemExit: it cannot be done, and has been insisted on.
            """
            wanted = os.environ.get(SWITCH, "")
            if version == "editable" or wanted == "0":
                return
            self.folder = tempfile.TemporaryDirectory(prefix="supervisord-cp-wheel-")
            argv = [sys.executable, __file__, self.root, "--into", self.folder.name]
            ended = subprocess.run(argv, stderr=subprocess.PIPE, text=True, check=False)
            if ended.returncode:
                if wanted == "1":
                    sys.exit(ended.stderr)
                self.app.display_warning(ended.stderr.rstrip().rpartition("\n")[2])
                return
            build_data.update(pure_python=False, infer_tag=True)
            build_data["force_include"].update(extensions(Path(self.folder.name)))

        def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
            """What was compiled is in the wheel now."""
            if self.folder is not None:
                self.folder.cleanup()

    return Compiled


def extensions(folder: Path) -> Iterator[tuple[str, str]]:
    """Each extension module, and its place in the wheel."""
    return ((str(made), str(made.relative_to(folder))) for made in sorted(folder.rglob("*.so")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tree", type=Path, help="holds the package")
    parser.add_argument(
        "--into", type=Path, help="where the extension modules go: the tree itself unless given"
    )
    given = parser.parse_args()
    try:
        number = compile_tree(given.tree.resolve(), given.into or given.tree)
    except Impossible as impossible:
        text = f"the router is not compiled, and costs about twice the CPU: {impossible}"
        print(f"supervisord-cp: {text}", file=sys.stderr)
        return 1
    print(f"compiled {number} modules")
    return 0


if __name__ == "__main__":
    sys.exit(main())
