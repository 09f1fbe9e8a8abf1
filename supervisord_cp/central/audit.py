"""Who did what by the control listener, as events."""

from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from supervisord_cp.central.page.sessions import ROLE
from supervisord_cp.model.event import Event

ACTOR_HEADER: Final = "X-Supervisord-Cp-Actor"
"""Whom a client says that it works for, such as `alice@bastion`: a hint, since nobody checks it."""
MOST: Final = 80


def audit(tell: Callable[[Event], None]) -> Middleware:
    """The middleware that tells of every operation that was carried out."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if request.method == "POST" and request.path.startswith("/api/v1/") and response.status < 400:
            tell(await _event(request))
        return response

    return middleware


async def _event(request: web.Request) -> Event:
    verb = request.path.rpartition("/")[2]
    subject = request.match_info.get("id", "") or request.path.split("/")[3]
    actor = _actor(request)
    body = msgspec.json.decode(await request.read() or b"{}")
    given: dict[str, str | int | float | None] = {
        name: str(value) for name, value in body.items() if value is not None
    }
    asked = ", ".join(f"{name}={value}" for name, value in given.items())
    return Event(
        kind=f"operator.{verb}",
        subject=subject,
        message=f"{verb} {subject}{f' ({asked})' if asked else ''} by {actor}",
        data={"actor": actor, **given},
    )


def _actor(request: web.Request) -> str:
    """`operator at 10.0.0.7, for alice@bastion`."""
    role = request[ROLE] or "anybody"
    claimed = "".join(char for char in request.headers.get(ACTOR_HEADER, "")[:MOST] if char.isprintable())
    return f"{role} at {request.remote}" + (f", for {claimed}" if claimed else "")
