"""What counts as an answer of a policy: the same for the host, at every call, and for tests of a policy.

Each check takes the answer and what the policy was asked with, and returns the answer in the form that is
used. It raises `Nonsense` for what cannot be an answer.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from supervisord_cp.model.base import NodeName
from supervisord_cp.model.request import Candidate, RoutingRequest
from supervisord_cp.model.scaling import ScaleProposal
from supervisord_cp.policy.placing import PlaceView
from supervisord_cp.policy.routing import Affinity

REQUEST_BUDGET_S: Final = 0.002
"""What a call on the way of a request may take."""
STEP_BUDGET_S: Final = 0.25
"""What a scaler or placer may take."""


class Nonsense(Exception):
    """An answer that cannot be one; the text goes on after the policy's name."""


def kept_candidates(
    answer: Iterable[Candidate], request: object, candidates: Sequence[Candidate], context: object
) -> tuple[Candidate, ...]:
    """A filter's, and a scheduler's `instances`: some of the candidates; all of them for none."""
    kept = tuple(_elements(answer, "candidates"))
    known = {id(candidate) for candidate in candidates}
    if not known.issuperset(map(id, kept)):
        raise Nonsense("returned something that is no candidate")
    if len(set(map(id, kept))) != len(kept):
        raise Nonsense("returned a candidate twice")
    return kept or tuple(candidates)


def finite_scores(
    answer: Iterable[float], request: RoutingRequest, candidates: Sequence[Candidate], context: object
) -> list[float]:
    """A scorer's: one finite number for each candidate."""
    scores = list(answer if type(answer) is list else _elements(answer, "numbers"))
    try:
        if len(scores) == len(candidates):
            total = sum(scores)
            if (type(total) is float and total - total == 0) or all(map(math.isfinite, scores)):
                return scores
    except (TypeError, OverflowError):
        pass
    raise Nonsense(f"did not return {len(candidates)} finite numbers")


def index_of_candidate(
    answer: object,
    request: RoutingRequest,
    candidates: Sequence[Candidate],
    scores: Sequence[float],
    context: object,
) -> int:
    """A picker's: an index of the candidates."""
    if type(answer) is int and 0 <= answer < len(candidates):
        return answer
    raise Nonsense(f"returned {_shown(answer)}, not an index below {len(candidates)}")


def affinity_or_none(answer: object, *args: object) -> Affinity | None:
    """What `on_dispatch` says; anything else says nothing."""
    return answer if isinstance(answer, Affinity) else None


def finite_rank(answer: object, waiting: object, context: object) -> float:
    """A scheduler's: a finite number."""
    if isinstance(answer, int | float) and math.isfinite(answer):
        return float(answer)
    raise Nonsense(f"returned {_shown(answer)}, not a finite number")


def yes_or_no(answer: object, waiting: object, context: object) -> bool:
    """A scheduler's `hopeless`."""
    if isinstance(answer, bool):
        return answer
    raise Nonsense(f"returned {_shown(answer)}, not True or False")


def one_line(answer: object) -> str:
    """What a policy says of its state."""
    if isinstance(answer, str):
        return answer.partition("\n")[0][:200]
    raise Nonsense(f"describe() returned {_shown(answer)}, not a string")


def proposal(answer: object, *args: object) -> ScaleProposal:
    """A scaler's: replicas are None or a finite number that is not negative."""
    if not isinstance(answer, ScaleProposal):
        raise Nonsense(f"returned {_shown(answer)}, not a ScaleProposal")
    replicas: Any = answer.replicas
    if replicas is None:
        return answer
    if isinstance(replicas, int | float) and math.isfinite(replicas) and replicas >= 0:
        return answer
    raise Nonsense(f"proposed {_shown(replicas)} replicas")


def chosen_node(answer: object, view: PlaceView) -> NodeName:
    """A placer's: the name of one of the nodes."""
    for room in view.nodes:
        if answer == room.node:
            return room.node
    raise Nonsense(f"returned {_shown(answer)}, not the name of a node that has room")


def _elements(answer: Any, what: str) -> Iterable[Any]:
    if isinstance(answer, str | bytes) or not isinstance(answer, Iterable):
        raise Nonsense(f"returned {_shown(answer)}, not {what}")
    return answer


def _shown(answer: object) -> str:
    """Short, and whatever its repr does."""
    if isinstance(answer, bool | int | float | str) or answer is None:
        return repr(answer)[:60]
    return f"a {type(answer).__name__}"
