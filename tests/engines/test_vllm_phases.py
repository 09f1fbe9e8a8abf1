"""Phases of a start, by recorded logs and by lines of other releases."""

from itertools import groupby

import pytest

from supervisord_cp.engines.vllm_phases import announced_phase
from supervisord_cp.model.instance import Phase
from tests.engines.samples import labelled_lines, recorded


def phases(log: str) -> list[Phase]:
    """The phases that a log announces, without repetitions."""
    announced = [phase for line in recorded(log).splitlines() if (phase := announced_phase(line))]
    return [phase for phase, _ in groupby(announced)]


def test_a_real_start() -> None:
    assert phases("start.log") == [Phase.LOADING, Phase.WARMING, Phase.READY]


def test_a_real_start_with_compilation() -> None:
    assert phases("start-compiled.log") == [Phase.LOADING, Phase.COMPILING, Phase.WARMING, Phase.READY]


@pytest.mark.parametrize(
    "log", ["unknown-flag.log", "model-missing.log", "port-taken.log", "length-too-long.log"]
)
def test_a_start_that_fails_early_announces_nothing(log: str) -> None:
    assert phases(log) == []


@pytest.mark.parametrize(("phase", "line"), labelled_lines("phase-lines.txt"))
def test_lines(phase: str, line: str) -> None:
    assert announced_phase(line) == (None if phase == "-" else phase)
