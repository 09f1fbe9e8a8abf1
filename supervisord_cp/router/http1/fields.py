"""Header fields, and which of them end at this hop."""

import re
from typing import Final

MOST_FIELDS: Final = 128

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_FIELD: Final = re.compile(rb"((" + _TOKEN + rb"):([^\x00-\x08\x0a-\x1f\x7f]*+)\r\n)")
TOKEN: Final = re.compile(_TOKEN)

_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_REWRITTEN: Final = frozenset({b"content-length", b"x-request-id"})
"""End to end, but written anew."""
_REQUEST_REWRITTEN: Final = _REWRITTEN | {
    b"host",
    b"expect",
    b"authorization",
    b"x-api-key",
    b"x-deadline-ms",
    b"x-queue-updates",
}
_RESPONSE_REWRITTEN: Final = _REWRITTEN | {
    b"x-supervisord-cp-instance",
    b"x-supervisord-cp-reason",
    b"x-supervisord-cp-queue-position",
    b"x-supervisord-cp-queue-wait-s",
}

REQUEST_WITHHELD: Final = _HOP_BY_HOP | _REQUEST_REWRITTEN
RESPONSE_WITHHELD: Final = _HOP_BY_HOP | _RESPONSE_REWRITTEN
REQUEST_NAMED: Final = REQUEST_WITHHELD | {
    b"content-type",
    b"x-session-id",
    b"x-priority",
    b"x-cost-budget",
}
"""The fields whose values we read; all others only pass."""
RESPONSE_NAMED: Final = RESPONSE_WITHHELD | {b"content-type"}

_OURS_TO_SAY: Final = frozenset({b"", b"close", b"keep-alive", b"upgrade"})


class BadHead(Exception):
    """A header section that is not what the grammar says."""


class TooManyFields(BadHead):
    """More of them than anybody needs."""


def end_to_end(
    block: bytes, start: int, named: frozenset[bytes], withheld: frozenset[bytes]
) -> tuple[dict[bytes, bytes], bytes]:
    """Split a header section into the values that we read and the fields that go on to the other side.

    `block` from `start` on is whole lines with their CRLF. The values are under lower-case names; a field
    that occurs twice has its values joined by `, `. Lines of hop-by-hop fields, of the fields that
    `Connection` names, and of those that we write anew do not go on.

    Raises:
        BadHead: a malformed line (obs-fold, space before the colon, bare CR or LF, NUL, …).
        TooManyFields: so many are not read.
    """
    found = _FIELD.findall(block, start)
    if len(found) > MOST_FIELDS:
        raise TooManyFields(f"more than {MOST_FIELDS} header fields")
    values: dict[bytes, bytes] = {}
    lines: list[bytes] = []
    matched = 0
    for line, name, value in found:
        matched += len(line)
        lower = name.lower()
        if lower in named:
            value = value.strip(b" \t")
            values[lower] = values[lower] + b", " + value if lower in values else value
            if lower in withheld:
                continue
        lines.append(line)
    if matched != len(block) - start:
        raise BadHead("malformed header field")
    if b"connection" in values:
        lines = _without_nominated(values[b"connection"], lines)
    return values, b"".join(lines)


def connection_options(values: dict[bytes, bytes]) -> frozenset[bytes]:
    """The options of `Connection`, lower case."""
    if b"connection" not in values:
        return frozenset()
    return frozenset(option.strip(b" \t") for option in values[b"connection"].lower().split(b","))


def _without_nominated(connection: bytes, lines: list[bytes]) -> list[bytes]:
    nominated = {option.strip(b" \t") for option in connection.lower().split(b",")} - _OURS_TO_SAY
    if not nominated:
        return lines
    return [line for line in lines if line.partition(b":")[0].lower() not in nominated]
