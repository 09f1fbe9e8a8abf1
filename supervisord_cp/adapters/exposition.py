"""Reading Prometheus text pages: only the lines that are asked for.

A vLLM page has 50 to 100 kB, nearly all of it histogram buckets that nobody here reads. A full parse
takes some 15 ms; looking for a handful of names takes a hundredth of that.
"""

import re
from collections.abc import Iterator
from typing import Final

_LABEL_VALUE: Final = r'"(?:[^"\\\n]|\\.)*"'
_REST: Final = re.compile(rf"[ \t]*(?:\{{((?:[^\"}}\n]|{_LABEL_VALUE})*)\}})?[ \t]*([^\s{{}}#]+)")
"""What follows a name on a sample's line: labels, if any, and the value."""
_LABEL: Final = re.compile(rf"[ \t,]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*({_LABEL_VALUE})")
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPED: Final = {"n": "\n", "\\": "\\", '"': '"'}


def values(page: str, name: str) -> list[float]:
    """The values of all series of one sample name, in the order of the page.

    `name` is the name as exposed: with `_total` for counters, with `_count` and the like for
    histograms. A series whose value is no number counts as NaN: it is there, and unknown.
    """
    return [_number(match[2]) for match in _lines(page, name)]


def samples(page: str, name: str) -> list[tuple[dict[str, str], float]]:
    """The labels and values of all series of one sample name, in the order of the page."""
    return [(_labels(match[1] or ""), _number(match[2])) for match in _lines(page, name)]


def _lines(page: str, name: str) -> Iterator[re.Match[str]]:
    at = page.find(name)
    while at >= 0:
        after = at + len(name)
        # The name must be the whole first word of its line: HELP and TYPE lines, label values and
        # longer names contain it, too.
        if page[after : after + 1] in (" ", "{", "\t") and _begins_line(page, at):
            match = _REST.match(page, after)
            if match is not None:
                yield match
        at = page.find(name, after)


def _begins_line(page: str, at: int) -> bool:
    if at == 0 or page[at - 1] == "\n":
        return True
    return page[page.rfind("\n", 0, at) + 1 : at].isspace()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _labels(text: str) -> dict[str, str]:
    return {label: _ESCAPE.sub(_unescape, quoted[1:-1]) for label, quoted in _LABEL.findall(text)}


def _unescape(match: re.Match[str]) -> str:
    # An unknown escape stands for itself, as in Prometheus' own reader.
    return _ESCAPED.get(match[1], match[0])
