"""`explain request` as text. Pure: JSON of the control API in, headings and sheets out."""

from collections.abc import Iterator

from supervisord_cp.cli import text
from supervisord_cp.cli.sheets import Json, Sheet


def request_parts(value: Json) -> Iterator[tuple[str, Sheet]]:
    """Each time that the request was sent to an instance: where to, and what else there was."""
    for router, decisions in value["decisions"].items():
        for number, one in enumerate(decisions):
            went = "sent again, to" if number else f"{value['request']} went to"
            how = f"by {one['policy']}" if one.get("policy") else "the only one with room"
            when = f"{text.duration(one.get('age_s'))} ago"
            yield f"{went} {one['pick']} {when}, {how} (router {router})", _considered(one)


def _considered(one: Json) -> Sheet:
    """Those with room: the chosen one, the others from the highest score down, then those left out."""
    scores: Json = one.get("scores") or {}
    others = sorted(one.get("alternates") or (), key=lambda name: -scores.get(name, 0.0))
    notes = [(one["pick"], "chosen"), *((name, "") for name in others)]
    notes += [(name, "left out by a filter") for name in one.get("left_out") or ()]
    return Sheet(
        ("INSTANCE", "SCORE", "TOKENS BOOKED", "REQUESTS", "WHAT"),
        tuple(
            (
                name,
                f"{scores[name]:.6g}" if name in scores else text.UNKNOWN,
                text.number((one.get("booked") or {}).get(name)),
                text.number((one.get("inflight") or {}).get(name)),
                note,
            )
            for name, note in notes
        ),
        tuple("ready" if name == one["pick"] else "" for name, _ in notes),
    )
