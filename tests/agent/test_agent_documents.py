"""What the documents of the agent say is what there is."""

from pathlib import Path

import pytest

from supervisord_cp.core.instances.backoff import RETRIES
from supervisord_cp.model.instance import ExitCause
from supervisord_cp.model.reason import ReasonCode

TEXT = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
ROWS = [line for line in TEXT.splitlines() if line.startswith("| `")]
GATES = [code for code in ReasonCode if code.startswith("awaiting_")]


@pytest.mark.parametrize("cause", [cause for cause in ExitCause if cause is not ExitCause.REQUESTED])
def test_every_cause_has_one_row_with_what_to_do(cause: ExitCause) -> None:
    (row,) = [row for row in ROWS if row.startswith(f"| `{cause}` |")]
    meaning, doing, advice = row.strip("|").split(" | ")[1:]
    assert meaning
    assert advice
    if cause in RETRIES and cause is not ExitCause.PORT_TAKEN:
        assert f"{RETRIES[cause].first_s:g} s" in doing
        assert ("at once when" in doing) == RETRIES[cause].mendable


@pytest.mark.parametrize("code", GATES)
def test_everything_that_a_start_waits_for_has_a_row(code: ReasonCode) -> None:
    assert any(row.startswith(f"| `gated({code})`") for row in ROWS)
