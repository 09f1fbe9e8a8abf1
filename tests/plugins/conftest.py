"""What the tests of the policy host share."""

from contextlib import nullcontext

import pytest

from supervisord_cp.plugin_host import host, trial
from supervisord_cp.plugin_host.trial import Subject, Verdict


class NoWatch:
    """For trials that are not in a main thread."""

    def __init__(self, tick_s: float) -> None:
        pass

    def arm(self) -> None: ...

    def disarm(self) -> None: ...

    def around(self) -> nullcontext[None]:
        return nullcontext()


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The policies that were tried, in this process: that is quicker, and trials by a child have tests of
    their own."""
    seen: list[str] = []

    def try_here(subject: Subject) -> Verdict:
        seen.append(subject.path or subject.entry_point)
        return trial.judge(subject)

    monkeypatch.setattr(trial, "AlarmWatch", NoWatch)
    monkeypatch.setattr(host, "try_out", try_here)
    return seen
