"""Asking Prometheus."""

from typing import Protocol

from supervisord_cp.model.base import Value


class PromSample(Value, frozen=True, kw_only=True):
    """One series of an instant query."""

    labels: dict[str, str] = {}
    value: float
    """NaN and infinities as Prometheus has them."""


class PromFailed(Exception):
    """Prometheus did not answer, or did not like the query; the text says which."""


class PrometheusPort(Protocol):
    """Instant queries, each with a deadline. A hung Prometheus blocks nobody but its own callers."""

    async def query(self, expression: str) -> tuple[PromSample, ...]:
        """The series of an instant query.

        Raises:
            PromFailed: with the reason.
        """
        ...

    def close(self) -> None: ...
