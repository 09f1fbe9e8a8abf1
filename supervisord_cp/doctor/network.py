"""Ports, central, Prometheus: what answers, and as what."""

import email.utils
import http.client
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from supervisord_cp.adapters.listeners import bind_error, in_use, listener_of
from supervisord_cp.config.schema import Listen
from supervisord_cp.doctor.finding import Finding, error, ok, warning
from supervisord_cp.model.base import Value

TIMEOUT_S: Final = 5.0
MOST_BYTES: Final = 16 << 20
"""A thousand instances are about one."""
SKEW_S: Final = 2.0
OURS: Final = "supervisord_cp"
"""Part of the command line of whatever is ours."""


class Answer(Value, frozen=True, kw_only=True):
    """What an address answered. Status 0: nothing, and why in `text`."""

    status: int
    text: str
    date: str = ""


def ask(url: str, path: str, token: str = "") -> Answer:
    """One GET, waited for at most 5 s."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request("GET", parts.path.rstrip("/") + path, headers=headers)
        response = connection.getresponse()
        text = response.read(MOST_BYTES).decode(errors="replace")
        return Answer(status=response.status, text=text, date=response.headers.get("Date", ""))
    except (OSError, http.client.HTTPException) as problem:
        return Answer(status=0, text=getattr(problem, "strerror", None) or str(problem) or "no answer")
    finally:
        connection.close()


def listener_findings(listeners: Iterable[tuple[str, Listen | None]]) -> Iterator[Finding]:
    """Each listener (its key, where): free, ours, or a stranger's?"""
    for what, listen in listeners:
        if listen is None or listen.port == 0:
            continue
        problem = bind_error(listen.host, listen.port)
        if problem is None:
            yield ok(what, f"{listen} is free")
        elif not in_use(problem):
            yield error(
                what, f"{listen}: {problem.strerror or problem}", "name an address that this host has"
            )
        else:
            holder = listener_of(listen.port)
            if OURS in holder.replace("-", "_") or not holder:
                yield ok(what, f"{listen} is served{f' by {holder}' if holder else ''}")
            else:
                yield error(what, f"{listen} is taken by {holder}", "end that, or choose another port")


def port_range_finding(ports: tuple[int, int], host: str) -> Finding:
    """How many of the engines' ports strangers have."""
    first, last = ports
    strangers: dict[str, list[int]] = {}
    for port in range(first, last + 1):
        if (problem := bind_error(host, port)) is not None and in_use(problem):
            holder = listener_of(port)
            if OURS not in holder.replace("-", "_") and "vllm" not in holder.lower():
                strangers.setdefault(holder or "a process of another user", []).append(port)
    text = f"{first}-{last}"
    if not strangers:
        return ok("engine ports", f"{text} are free or ours")
    taken_ports = sum(len(theirs) for theirs in strangers.values())
    shown = "; ".join(f"{_ports(theirs)} by {holder}" for holder, theirs in list(strangers.items())[:3])
    shown += f"; and {len(strangers) - 3} more" if len(strangers) > 3 else ""
    if taken_ports > (last - first + 1) // 2:
        taken = f"of {text} most are taken: {shown}"
        return error("engine ports", taken, "choose another range in [agent] ports")
    taken = f"of {text} some are taken: {shown}"
    return warning("engine ports", taken, "they are left out; or choose others")


def _ports(ports: list[int]) -> str:
    return ", ".join(map(str, ports[:3])) + (f" and {len(ports) - 3} more" if len(ports) > 3 else "")


def central_findings(url: str, tokens: Iterable[tuple[str, str]], now: float) -> Iterator[Finding]:
    """Does central answer, does it know each token (whose, which), and do our clocks agree?"""
    answer = ask(url, "/healthz")
    if answer.status != 200:
        yield error(
            "central",
            f"{url} does not answer: {answer.text[:80] if answer.status == 0 else f'status {answer.status}'}",
            "systemctl status supervisord-cp-central there; or correct `central` in the configuration",
        )
        return
    yield ok("central", f"{url} answers")
    if answer.date:
        yield skew(answer.date, now)
    for whose, token in tokens:
        told = ask(url, "/api/v1/status", token)
        if told.status in (401, 403):
            yield error(
                whose,
                f"{url} does not know this token",
                "its line must be in central's tokens_file, as `role: TOKEN`",
            )
        elif told.status == 200:
            yield ok(whose, "central knows it")


def skew(date: str, now: float) -> Finding:
    """Whether two hosts' clocks agree, by an answer's Date (whole seconds). Pure."""
    theirs = email.utils.parsedate_to_datetime(date).timestamp()
    apart = now - theirs - 0.5
    if abs(apart) > SKEW_S + 0.5:
        return warning(
            "clock",
            f"this host is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} central",
            "let both follow a time server: timedatectl set-ntp true",
        )
    return ok("clock", "agrees with central's")


def prometheus_findings(url: str) -> Iterator[Finding]:
    """Does Prometheus answer, and does it scrape us?"""
    query = urlencode({"query": 'count by (job) (up{job=~"supervisord-cp.*|vllm"} == 1)'})
    answer = ask(url, f"/api/v1/query?{query}")
    if answer.status != 200:
        yield error(
            "Prometheus",
            f"{url} does not answer: {answer.text[:80] if answer.status == 0 else f'status {answer.status}'}",
            "start it, or correct [prometheus] url; scalers that need it hold their number meanwhile",
        )
        return
    jobs = {series["metric"].get("job", ""): series["value"][1] for series in _result(answer.text)}
    if not jobs:
        yield error(
            "Prometheus",
            f"{url} answers, but scrapes nothing of ours",
            "supervisord-cp install prometheus; see its Targets page",
        )
    else:
        yield ok("Prometheus", ", ".join(f"{count} of {job}" for job, count in sorted(jobs.items())) + " up")


def _result(text: str) -> list[dict[str, Any]]:
    try:
        result = json.loads(text)["data"]["result"]
    except (ValueError, KeyError, TypeError):
        return []
    return result if isinstance(result, list) else []


def wall() -> float:
    """Seconds since 1970 by this host's clock."""
    return time.time()
