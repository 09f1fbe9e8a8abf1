"""Any module can be the first one: nothing is looked for in a module that is only half there."""

import os
import subprocess
import sys

import pytest

from tests.shape.sources import ROOT

# One process reads the interpreter's start-up once; its children import one module each.
PROGRAM = """
import importlib, os, sys
failed = 0
for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
            os._exit(0)
        except BaseException as error:
            print(name, repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    failed += bool(os.waitpid(child, 0)[1])
sys.exit(bool(failed))
"""
DECLARED = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "supervisord_cp").rglob("*.pxd"))
]


@pytest.mark.skipif("SUPERVISORD_CP_EXPECT_COMPILED" not in os.environ, reason="nothing is compiled here")
def test_any_compiled_module_can_be_imported_first() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *DECLARED], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (ended.returncode, ended.stderr) == (0, "")
