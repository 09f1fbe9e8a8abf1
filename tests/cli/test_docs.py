"""What the documentation says of the command line is what the command line is."""

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from supervisord_cp.cli.main import program
from tests.shape.sources import ROOT

CLIENT_OPTIONS = {"--address", "--token-file", "--config"}
ENGINE_FLAGS = {"--max-model-len"}
"""An engine's, as an example."""
CLI = (ROOT / "docs/cli.md").read_text()


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that is no group, by its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


COMMANDS = dict(commands(program))


def sections(text: str) -> dict[str, str]:
    """Text below each heading of level 2 and 3, up to the next one."""
    parts = re.split(r"^###? (.+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    titles = {title for title in sections(CLI) if title == title.lower()}
    assert titles - {"config"} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_options_are_those_of_the_command(name: str) -> None:
    section = re.sub(r"^ +→ .*$", "", sections(CLI)[name], flags=re.MULTILINE)
    documented = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", section))
    if "client options" in " ".join(section.split()):
        documented |= CLIENT_OPTIONS
    options = [item for item in COMMANDS[name].params if isinstance(item, click.Option) and not item.hidden]
    real = {max(option.opts, key=len) for option in options}
    assert documented - ENGINE_FLAGS == real


def shell_lines(text: str) -> Iterator[list[str]]:
    """Words of every `supervisord-cp …` in code blocks, comments and prompts taken off."""
    for block in re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            for part in line.removeprefix("$ ").split(" && "):
                words = shlex.split(part, comments=True)
                if words and words[0].rpartition("/")[2] == "supervisord-cp":
                    yield words[1:]


DOCUMENTS = (
    "README.md",
    "docs/quickstart.md",
    "docs/quickstart.zh.md",
    "docs/several-hosts.md",
    "docs/cli.md",
    "docs/autoscaling.md",
)
LINES = [words for document in DOCUMENTS for words in shell_lines((ROOT / document).read_text())]


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_command_lines_in_documents_can_be_parsed(words: list[str]) -> None:
    """Names, options and types are checked, nothing is run."""
    command: click.Command = program
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, words
        command, words = found, words[1:]
    command.make_context("test", list(words))


def test_documents_have_command_lines() -> None:
    assert len(LINES) > 20
