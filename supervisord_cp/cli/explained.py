"""Why a deployment has the number of replicas that it has, as text: pure functions from JSON values to lines.

Fields that an older or newer central leaves out are left out here.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from supervisord_cp.cli import text
from supervisord_cp.cli.sheets import Json, Sheet

_NO_VALUE: Final = {"nan": "not known yet", "missing": "not known yet"}
"""What an input without a value is called; `stale` says it itself."""


def decision_lines(value: Json) -> Iterator[str]:
    """A decision, section by section: what was decided, from what, by whom, within which limits."""
    yield from _headline(value)
    yield from _section("inputs", _columns([_input(one) for one in value.get("inputs") or ()]))
    proposals = [_proposal(one) for one in value.get("proposals") or ()]
    yield from _section("proposals", _columns(proposals))
    limits = [_limit(one) for one in _of(value, "limits")]
    yield from _section("limits that changed it, in order", _columns(limits))
    others = [_otherwise(one) for one in _of(value, "otherwise")]
    others += [line for one in _of(value, "thresholds") for line in _threshold(one)]
    yield from _section("for another number", _columns(others))
    yield from _section("replicas without a place", _columns([_place(one) for one in _unplaced(value)]))
    failing = [_failing(one) for one in _of(value.get("deployment") or {}, "failing")]
    yield from _section("replicas that do not come up", _columns(failing))


def _headline(value: Json) -> Iterator[str]:
    shown, decision = value.get("deployment") or {}, value.get("decision") or {}
    replicas = value.get("replicas") or {}
    name = shown.get("name", "?")
    wanted = decision.get("wanted", shown.get("wanted", "?"))
    named = [(key, key) for key in ("ready", "starting", "draining") if replicas.get(key) is not None]
    named += [("failed", "in backoff")] if replicas.get("failed") else []
    counts = ", ".join(f"{replicas[key]} {words}" for key, words in named)
    yield f"{name}: {wanted} wanted" + (f" ({counts})" if counts else "")
    for message in (shown.get("message") if shown.get("held") else None, decision.get("message")):
        if message:
            yield f"  {message}"
    if override := value.get("override"):
        until = override.get("expires_at")
        yield "  set by hand" + (f", until {moment(until)}" if until else ", until `scale auto`")
    if decision.get("at"):
        yield f"  decided {moment(decision['at'])}"


def _input(one: Json) -> tuple[object, ...]:
    """`prompt_tokens_per_s  4000  0.4s old  router, over 10s`; what is no number says so."""
    state = one.get("state")
    value = f"{one['value']:.6g}" if one.get("value") is not None else _NO_VALUE.get(str(state), str(state))
    where = str(one.get("source") or "")
    if window := one.get("window_s"):
        where += f", over {text.duration(window)}"
    age = f"{text.duration(one.get('age_s'))} old" if state != "missing" or one.get("age_s") else ""
    more = [one.get("detail"), one.get("expression")]
    return one.get("name"), value, age, where, "; ".join(str(part) for part in more if part)


def _proposal(one: Json) -> tuple[object, ...]:
    replicas = one.get("replicas")
    number = "does not know" if replicas is None else f"{replicas:g}"
    words = (("at_least", "at least"), ("at_most", "at most"))
    bounds = [f"{word} {one[key]}" for key, word in words if one.get(key) is not None]
    return one.get("policy"), number, ", ".join(bounds), one.get("message")


def _limit(one: Json) -> tuple[object, ...]:
    return f"{one.get('before')} -> {one.get('after')}", one.get("message")


def _otherwise(one: Json) -> tuple[object, ...]:
    then, because = one.get("then"), one.get("because")
    if then is None:
        return "?", one.get("if")
    return then, f"{one.get('if')}" + (f" ({because})" if because else "")


def _threshold(one: Json) -> Iterator[tuple[object, ...]]:
    for key, number, word in (("more_above", "more", "above"), ("less_below", "less", "below")):
        if (edge := one.get(key)) is None:
            continue
        if signal := one.get("signal"):
            told = f"when {signal} stays {word} {edge:.4g} (now {one.get('value', 0.0):.4g})"
        else:
            told = f"when the load stays {word} {100 * edge:.0f}% of the present one"
        yield one.get(number), f"{told}, by {one.get('policy')}"


def _unplaced(value: Json) -> Sequence[Json]:
    found: Sequence[Json] = (value.get("deployment") or {}).get("cannot_place") or ()
    return found


def _place(one: Json) -> tuple[object, ...]:
    return (one.get("message"), *(f"would be placed {way}" for way in one.get("ways") or ()))


def _failing(one: Json) -> tuple[object, ...]:
    return (f"{one.get('message')}: supervisord-cp explain instance {one.get('instance')}",)


def decisions_sheet(decisions: Sequence[Json]) -> Sheet:
    """The latest decisions, a line each."""
    return Sheet(
        ("AT", "FROM", "WANTED", "WHY"),
        tuple(
            (
                moment(one.get("at")),
                str(one.get("current", text.UNKNOWN)),
                str(one.get("wanted", text.UNKNOWN)),
                str(one.get("message") or one.get("reason") or ""),
            )
            for one in decisions
        ),
        tuple("suspect" if one.get("held") else "" for one in decisions),
        coloured=3,
        empty="no decision is kept",
    )


def moment(at: float | None) -> str:
    """The time of day here, with its date."""
    if at is None:
        return text.UNKNOWN
    return f"{datetime.fromtimestamp(at, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def _of(value: Mapping[str, Any], key: str) -> Sequence[Json]:
    found: Sequence[Json] = value.get(key) or ()
    return found


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    first = next(lines, None)
    if first is not None:
        yield f"{title}:"
        yield f"  {first}"
        yield from (f"  {line}" for line in lines)


def _columns(rows: Sequence[tuple[object, ...]]) -> Iterator[str]:
    """Rows with their columns under each other; the last column is as long as it is."""
    told = [tuple("" if cell is None else str(cell) for cell in row) for row in rows]
    widths = [
        max((len(row[n]) for row in told if n < len(row) - 1), default=0)
        for n in range(max(map(len, told), default=0))
    ]
    for row in told:
        yield "  ".join(
            cell if n == len(row) - 1 else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
