"""The README's test command is what continuous integration runs, so it must be there in the form it takes."""

import re

from tests.shape.sources import ROOT

COMMAND = "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/pytest -q"


def test_readme_has_the_test_command_alone_in_a_block() -> None:
    readme = (ROOT / "README.md").read_text()
    section = re.search(r"^## Run the tests\n(.*?)(?=^## |\Z)", readme, re.MULTILINE | re.DOTALL)
    assert section, 'README.md has no section "## Run the tests"'
    block = re.search(r"^```\w*\n(.*?)^```", section[1], re.MULTILINE | re.DOTALL)
    assert block, "it has no fenced block"
    assert block[1].strip() == COMMAND
