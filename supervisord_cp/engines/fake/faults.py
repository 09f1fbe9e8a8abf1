"""The faults of requests and streams, as the knobs say at the moment."""

import os
import signal
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from supervisord_cp.engines.fake import knobs as knob_table
from supervisord_cp.engines.fake.knobs import Knobs


class CutConnection(Exception):
    """Close the client's connection without another byte."""


class StreamFailed(Exception):
    """End the stream with an error frame."""


class Faults:
    """The current knobs and what they have done so far."""

    def __init__(self, knobs: Knobs, on_change: Callable[[Mapping[str, Any]], None] = lambda _: None) -> None:
        self.knobs = knobs
        self._on_change = on_change
        self._failed = 0

    def change(self, changes: Mapping[str, Any]) -> None:
        """Set live knobs.

        Raises:
            KnobError: an unknown knob, a wrong value, or one that is not live. Nothing is changed then.
        """
        self.knobs = knob_table.update(self.knobs, changes, live=True)
        if "fail_first" in changes:
            self._failed = 0
        self._on_change(changes)

    def refusal(self) -> int | None:
        """The status to refuse a new request with, None to serve it."""
        if self._failed >= self.knobs.fail_first:
            return None
        self._failed += 1
        return self.knobs.fail_status

    def after_token(self, tokens: int) -> None:
        """To be called when a sequence's first `tokens` tokens are on the wire.

        Raises:
            CutConnection, StreamFailed: what is to happen now. It may not return at all.
        """
        knobs = self.knobs
        if knobs.die_after_tokens is not None and tokens >= knobs.die_after_tokens:
            die(knobs)
        if knobs.cut_after_tokens is not None and tokens >= knobs.cut_after_tokens:
            raise CutConnection
        if knobs.error_after_tokens is not None and tokens >= knobs.error_after_tokens:
            raise StreamFailed("Internal server error")


def die(knobs: Knobs) -> NoReturn:
    """End this process at once, as `die_by` says; its children stay."""
    if knobs.die_by == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(knobs.exit_code)
