"""A stub central, and the program run in process against it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from supervisord_cp.cli.main import program
from tests.cli.stub import StubCentral, stub_central

Run = Callable[..., Result]


@pytest.fixture
def central() -> Iterator[StubCentral]:
    with stub_central() as stub:
        yield stub


@pytest.fixture
def run(central: StubCentral, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `supervisord-cp WORDS…` against the stub."""
    monkeypatch.setenv("SUPERVISORD_CP_ADDRESS", central.url)
    monkeypatch.delenv("SUPERVISORD_CP_CONFIG", raising=False)

    def run(*words: str, **settings: Any) -> Result:
        return CliRunner().invoke(program, list(words), **settings)

    return run
