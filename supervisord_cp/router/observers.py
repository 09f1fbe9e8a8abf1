"""Who looks on while requests are served: one line per request at level debug; traces (`tracing.py`)."""

import logging
from typing import TYPE_CHECKING, Final, Protocol

from supervisord_cp.core.routing.rejection import Rejection
from supervisord_cp.core.routing.retry import Miss
from supervisord_cp.core.routing.usage import Usage
from supervisord_cp.router.exchange import Exchange

if TYPE_CHECKING:
    from supervisord_cp.router.flow import Flow

REQUESTS: Final = logging.getLogger("supervisord_cp.router.requests")


class Observer(Protocol):
    """Is told what happens to requests, on the event loop: it must be quick, and change nothing but what is
    said of it. There is none unless somebody asked."""

    def began(self, flow: "Flow") -> None:
        """A request was understood, and will be sent somewhere or wait. `over` will follow."""
        ...

    def missed(self, flow: "Flow", miss: Miss, why: str) -> None:
        """Its instance (`flow.account`) did not answer; it may be tried elsewhere."""
        ...

    def over(self, flow: "Flow", usage: Usage, now: float) -> None:
        """It is done with, one way or another. `usage` is zero where it is not known."""
        ...

    def refused(self, exchange: Exchange, rejection: Rejection, request: str) -> None:
        """One was refused before it was understood; `request` is its id."""
        ...


class RequestLog:
    """Lines of level debug, each with `request_id`."""

    def began(self, flow: "Flow") -> None:
        pass

    def missed(self, flow: "Flow", miss: Miss, why: str) -> None:
        assert flow.account is not None
        extra = {"request_id": flow.request.id, "instance": flow.account.instance.id, "miss": str(miss)}
        REQUESTS.debug("missed: %s", why, extra=extra)

    def over(self, flow: "Flow", usage: Usage, now: float) -> None:
        request, account = flow.request, flow.account
        extra: dict[str, object] = {
            "request_id": request.id,
            "path": request.path,
            "deployment": request.deployment,
            "instance": "" if account is None else account.instance.id,
            "status": flow.status,
            "seconds": round(now - flow.arrived_at, 4),
            "queue_wait_s": round(flow.waited_s, 4),
        }
        if flow.first_byte_at:
            extra["first_byte_s"] = round(flow.first_byte_at - flow.arrived_at, 4)
        if usage.completion_tokens:
            extra |= {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
        REQUESTS.debug("cut off" if flow.cut else "answered", extra=extra)

    def refused(self, exchange: Exchange, rejection: Rejection, request: str) -> None:
        extra = {
            "request_id": request,
            "path": exchange.head.path,
            "status": rejection.status,
            "reason": str(rejection.reason),
        }
        REQUESTS.debug("refused", extra=extra)
