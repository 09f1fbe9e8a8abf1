"""The status page: one HTML document without scripts or external parts."""

from html import escape
from typing import Any, Final

_STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884; }
.bad { color: #c33; } .good { color: #2a7; }
"""


def render(status: dict[str, Any], instances: list[dict[str, Any]]) -> str:
    """The fleet as a page."""
    verdict = (
        '<span class="good">healthy</span>'
        if status["healthy"]
        else '<span class="bad">needs attention</span>'
    )
    problems = "".join(f"<li>{escape(p)}</li>" for p in status["problems"])
    deployments = _table(
        ("deployment", "ready", "wanted", "starting", "draining", "why"),
        [
            (
                d["name"],
                d["ready"] + d["static_ready"],
                d["wanted"],
                d["starting"],
                d["draining"],
                d["message"],
            )
            for d in status["deployments"]
        ],
    )
    rows = _table(
        ("instance", "state", "node", "address", "running", "waiting", "restarts", "why"),
        [
            (
                i["id"],
                i["state"],
                i["node"],
                i["url"],
                _known(i["requests_running"]),
                _known(i["requests_waiting"]),
                i["restarts"],
                i["message"],
            )
            for i in instances
        ],
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="5">'
        f"<title>supervisord-cp</title><style>{_STYLE}</style></head><body>"
        f"<h1>Fleet: {verdict}</h1><ul>{problems}</ul>"
        f"<h2>Deployments</h2>{deployments}<h2>Instances</h2>{rows}</body></html>"
    )


def _known(value: int | None) -> str:
    return "?" if value is None else str(value)


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    top = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(c))}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
