"""The guard around every call of a policy: what it answers is checked, what it does wrong is counted."""

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from supervisord_cp.core.policies.breaker import Breaker
from supervisord_cp.policy.answers import REQUEST_BUDGET_S, Nonsense

Answer = TypeVar("Answer")

LONGEST_TEXT: Final = 300


class Overrun(BaseException):
    """Raised into a policy that does not come back. Not an `Exception`, so that a policy's own
    `except Exception` does not hold it up."""


class Watch(Protocol):
    """Raises `Overrun` into a call that lasts too long."""

    def enter(self) -> None:
        """A call begins."""
        ...

    def leave(self) -> None:
        """It has ended."""
        ...


class Listener(Protocol):
    """Who is told when things change; single failures are counted only."""

    def opened(self, policy: str, why: str, lasts_s: float) -> None:
        """A policy is left alone for a while: others decide in its place."""
        ...

    def closed(self, policy: str) -> None:
        """It decides again."""
        ...


class Figures:
    """What is counted of one policy, by name: it outlives the guards."""

    __slots__ = ("calls", "failures", "last_failure", "open", "seconds")

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 0.0
        self.failures = 0
        self.open = 0
        """Guards whose breaker is open."""
        self.last_failure = ""


class Guard:
    """One policy in use."""

    __slots__ = ("_breaker", "_budget_s", "_figures", "_listener", "_open", "_timer", "_watch", "name")

    def __init__(
        self,
        name: str,
        figures: Figures,
        listener: Listener,
        timer: Callable[[], float],
        *,
        budget_s: float = REQUEST_BUDGET_S,
        watch: Watch | None = None,
    ) -> None:
        """`timer` measures calls, in seconds. One that takes longer than the budget counts as a failure;
        its answer is used all the same."""
        self.name: Final = name
        self._figures = figures
        self._listener = listener
        self._timer = timer
        self._budget_s = budget_s
        self._watch = watch
        self._breaker = Breaker()
        self._open = False

    @property
    def is_open(self) -> bool:
        """Whether the policy is left alone, or on trial after that."""
        return self._open

    def ask(
        self, call: Callable[..., Any], check: Callable[..., Answer], now: float, *args: Any
    ) -> Answer | None:
        """What `check(answer, *args)` makes of the answer to `call(*args)`. None: there is none, because
        the policy failed or is left alone."""
        if self._open and self._breaker.blocks(now):
            return None
        watch = self._watch
        began = self._timer()
        try:
            try:
                if watch is not None:
                    watch.enter()
                answer = call(*args)
            finally:
                if watch is not None:
                    watch.leave()
            checked = check(answer, *args)
        except Overrun:
            if watch is not None:
                watch.leave()  # it may have been raised just before
            self._count(began)
            self._failed(now, "did not come back and was broken off", grave=True)
            return None
        except Nonsense as nonsense:
            self._count(began)
            self._failed(now, str(nonsense))
            return None
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a policy that calls sys.exit() is no reason to end
            self._count(began)
            self._failed(now, f"raised {type(error).__name__}: {error}")
            return None
        took = self._count(began)
        if took > self._budget_s:
            self._failed(now, f"took {took * 1000:.1f} ms, more than {self._budget_s * 1000:g} ms")
        elif self._breaker.succeeded(now):
            self._close()
        return checked

    def tell(self, call: Callable[..., Any], now: float, *args: Any) -> None:
        """Call what answers nothing."""
        self.ask(call, _anything, now, *args)

    def retire(self) -> None:
        """It is no longer in use."""
        if self._open:
            self._open = False
            self._figures.open -= 1

    def _count(self, began: float) -> float:
        took = self._timer() - began
        self._figures.calls += 1
        self._figures.seconds += took
        return took

    def _failed(self, now: float, why: str, *, grave: bool = False) -> None:
        why = why[:LONGEST_TEXT]
        self._figures.failures += 1
        self._figures.last_failure = why
        lasts_s = self._breaker.failed(now, grave=grave)
        if lasts_s:
            if not self._open:
                self._open = True
                self._figures.open += 1
            self._listener.opened(self.name, why, lasts_s)

    def _close(self) -> None:
        if self._open:
            self._open = False
            self._figures.open -= 1
            self._listener.closed(self.name)


def _anything(answer: object, *args: object) -> None:
    return None
