"""docs/router.md says what the code does."""

import re
from pathlib import Path

from supervisord_cp.core.routing.rejection import RejectReason, status_of
from supervisord_cp.core.routing.retry import MAX_REFUSALS
from supervisord_cp.model.request import RequestPriority
from supervisord_cp.router.http1.fields import MOST_FIELDS
from supervisord_cp.router.http1.head import MOST_HEAD_BYTES

PAGE = (Path(__file__).parents[2] / "docs" / "router.md").read_text(encoding="utf-8")


def test_every_error_is_in_the_table_with_its_status() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE, re.MULTILINE))
    assert {reason: int(status) for reason, status in rows.items()} == {
        r.value: status_of(r) for r in RejectReason
    }


def test_every_priority_is_named() -> None:
    assert all(f"`{priority.name.lower()}`" in PAGE for priority in RequestPriority)


def test_numbers_are_those_of_the_code() -> None:
    assert f"more than {MOST_HEAD_BYTES // 1024} KiB of head" in PAGE
    assert f"At most {MOST_FIELDS} header fields" in PAGE
    assert MAX_REFUSALS == 8
    assert "After eight refusals" in PAGE
