"""What a head alone says of its request: found out once, for all requests that have it."""

from typing import Final

from supervisord_cp.core.routing.paths import forwarded
from supervisord_cp.router.answers import MESSAGES
from supervisord_cp.router.http1.head import RequestHead
from supervisord_cp.router.own import HEALTH, is_models

RESPONSES: Final = "/v1/responses"
WISHES: Final = (b"x-session-id", b"x-priority", b"x-deadline-ms", b"x-cost-budget", b"x-queue-updates")
MOST_ID: Final = 128


class Traits:
    """Nobody changes them."""

    __slots__ = (
        "content_type",
        "forwarded",
        "given_id",
        "is_health",
        "is_messages",
        "is_models",
        "response",
        "stores",
        "wishes",
    )

    def __init__(self, head: RequestHead) -> None:
        path, values = head.path, head.values
        self.is_health: Final = path in HEALTH
        self.is_models: Final = is_models(path)
        self.forwarded: Final = forwarded(path)
        """Whether the path is for every client."""
        self.is_messages: Final = path == MESSAGES
        self.stores: Final = path == RESPONSES
        """Whether the engine may store the answer."""
        of = f"{RESPONSES}/"
        self.response: Final = path.removeprefix(of).partition("/")[0] if path.startswith(of) else ""
        """The stored response that is asked for."""
        self.wishes: Final = any(name in values for name in WISHES)
        """Whether one of the fields that say how to treat the request is there."""
        self.content_type: Final = values.get(b"content-type", b"")
        given = head.value(b"x-request-id")
        usable = 0 < len(given) <= MOST_ID and given.isascii() and given.isprintable()
        self.given_id: Final = given if usable else ""
        """The client's own `x-request-id`, "" when it has none that can be used."""


def traits_of(head: RequestHead) -> Traits:
    """Those of a head."""
    traits = head.traits
    if traits is None:
        traits = head.traits = Traits(head)
    return traits
