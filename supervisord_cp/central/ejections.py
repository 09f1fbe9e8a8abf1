"""What routers have put out of rotation by themselves, for people to see. Pure."""

from collections.abc import Sequence
from typing import Any

from supervisord_cp.model.router import OutOfRotation

Json = dict[str, Any]
Told = Sequence[tuple[str, OutOfRotation]]


def added(message: str, ejections: Told, routers: int) -> Json:
    """What the JSON of an instance says of it; `message` is what it says otherwise."""
    words = in_words(ejections, routers)
    return {"ejected": told(ejections), "message": "; ".join(text for text in (message, words) if text)}


def told(ejections: Told) -> list[Json]:
    """As JSON, one for each router."""
    return [
        {
            "router": router,
            "cause": out.cause,
            "message": out.why,
            "for_s": out.for_s,
            "times": out.times,
            "on_trial": out.on_trial,
            "trials_left": out.trials_left,
        }
        for router, out in ejections
    ]


def in_words(ejections: Told, routers: int) -> str:
    """One line: how many of so many routers send it nothing, and why the first one does not."""
    if not ejections:
        return ""
    _, first = ejections[0]
    who = "the router" if routers == 1 else f"{len(ejections)} of {routers} routers"
    have = "has" if routers == 1 or len(ejections) == 1 else "have"
    stage = (
        f"; on trial, {first.trials_left} more request{'s' * (first.trials_left > 1)} must go well"
        if first.on_trial
        else ""
    )
    return f"{who} {have} it out of rotation: {first.why or first.cause}{stage}"
