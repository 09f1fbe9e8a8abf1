"""From an exchange to a request that can be routed: which deployment, how much work, for whom."""

import re
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from supervisord_cp.core.routing.asked import Asked
from supervisord_cp.core.routing.classify import read_body, read_query
from supervisord_cp.core.routing.lane import Lane
from supervisord_cp.core.routing.paths import allowed
from supervisord_cp.core.routing.prefix_keys import prefix_keys
from supervisord_cp.core.routing.rejection import Rejected, RejectReason
from supervisord_cp.model.base import Incarnation
from supervisord_cp.model.request import RequestPriority, RoutingRequest
from supervisord_cp.router.exchange import Exchange
from supervisord_cp.router.fleet import Fleet
from supervisord_cp.router.http1.head import RequestHead
from supervisord_cp.router.own import unknown_model
from supervisord_cp.router.stored import Home, StoredResponses
from supervisord_cp.router.traits import traits_of
from supervisord_cp.router.updates import HEADER, wanted_s

if TYPE_CHECKING:
    from supervisord_cp.router.flow import Flow

UNTOLD_RETRY_S: Final = 2
_AMOUNT: Final = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?(?:e[-+]?[0-9]{1,2})?", re.ASCII)
_NORMAL: Final = RequestPriority.NORMAL
_PRIORITIES: Final = {priority.name.lower(): priority for priority in RequestPriority}


def check_path(head: RequestHead, fleet: Fleet) -> None:
    """Refuse a path that no deployment lets through, before anything else is read.

    Raises:
        Rejected: engine_route_denied.
    """
    path = head.path
    if not traits_of(head).forwarded and not any(
        allowed(path, d.allow_paths) for d in fleet.table.deployments.values()
    ):
        raise _denied(path)


def take(
    exchange: Exchange, fleet: Fleet, stored: StoredResponses, request_id: str
) -> "tuple[Lane[Flow], RoutingRequest, Asked, Incarnation | None]":
    """Understand a request: whose it is, what policies see of it, what its body says, and the only
    incarnation that can answer it, if there is one.

    Raises:
        Rejected: it cannot be read, or no deployment is meant by it.
    """
    head = exchange.head
    traits = traits_of(head)
    body = exchange.body
    asked = read_body(traits.content_type, body)
    model = asked.model or read_query(head.query)
    home = stored.find(asked.previous or traits.response) if asked.previous or traits.response else None
    lane = _lane(model, home, fleet)
    if not traits.forwarded and not allowed(head.path, lane.deployment.allow_paths):
        raise _denied(head.path)
    request = RoutingRequest(
        id=request_id,
        deployment=lane.deployment.name,
        model=model,
        path=head.path,
        prompt_tokens=lane.work.prefill(len(body)),
        max_tokens=asked.limit,
        stream=asked.stream,
        key=exchange.key,
        user=asked.user,
        prefix=prefix_keys(body) if lane.needs_prefix else (),
    )
    if traits.wishes:
        request = _as_wished(request, head)
    return lane, request, asked, home.incarnation if home else None


def _lane(model: str, home: Home | None, fleet: Fleet) -> "Lane[Flow]":
    if not fleet.known:
        raise Rejected(
            RejectReason.NO_CAPACITY,
            "The router has not been told of any engine yet.",
            retry_after_s=UNTOLD_RETRY_S,
        )
    if model:
        lane = fleet.lane(model)
        if lane is None:
            raise unknown_model(model)
        return lane
    lane = fleet.lanes.get(home.deployment) if home is not None else None
    lane = lane or fleet.only_lane()
    if lane is None:
        raise Rejected(RejectReason.MODEL_MISSING, "The request does not say which model.", param="model")
    return lane


def _as_wished(request: RoutingRequest, head: RequestHead) -> RoutingRequest:
    """With what fields of the head say of how to treat it."""
    values = head.values
    if HEADER in values:
        _check_updates(head)
    return replace(
        request,
        session=head.value(b"x-session-id"),
        priority=_priority(head) if b"x-priority" in values else _NORMAL,
        deadline_ms=_deadline(head) if b"x-deadline-ms" in values else None,
        cost_budget=_cost_budget(head) if b"x-cost-budget" in values else None,
    )


def _priority(head: RequestHead) -> RequestPriority:
    given = head.value(b"x-priority")
    priority = _PRIORITIES.get(given.lower())
    if priority is None:
        raise Rejected(RejectReason.BAD_REQUEST, f"x-priority is one of {', '.join(_PRIORITIES)}.")
    return priority


def _deadline(head: RequestHead) -> int:
    given = head.value(b"x-deadline-ms")
    if not given.isascii() or not given.isdigit() or len(given) > 12:
        raise Rejected(RejectReason.BAD_REQUEST, "x-deadline-ms is a whole number of milliseconds.")
    return int(given)


def _cost_budget(head: RequestHead) -> float:
    given = head.value(b"x-cost-budget")
    if _AMOUNT.fullmatch(given) is None:
        raise Rejected(RejectReason.BAD_REQUEST, "x-cost-budget is a number that is not negative.")
    return float(given)


def _check_updates(head: RequestHead) -> None:
    try:
        wanted_s(head, 0.0)
    except ValueError:
        message = "x-queue-updates is a number of seconds from 0 to 3600."
        raise Rejected(RejectReason.BAD_REQUEST, message) from None


def _denied(path: str) -> Rejected:
    message = f"The path {path[:200]} is not open to clients; `allow_paths` of a deployment can open it."
    return Rejected(RejectReason.ENGINE_ROUTE_DENIED, message)
