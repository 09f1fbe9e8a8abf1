"""JSON merge patches (RFC 7386): what a browser is sent of a state that it has seen before. Pure."""

from typing import Any

Json = dict[str, Any]


def merge_patch(before: Json, after: Json) -> Json:
    """What turns `before` into `after`; empty when nothing changed. A value of None is the same as none."""
    patch: Json = {name: None for name in before if after.get(name) is None and before[name] is not None}
    for name, value in after.items():
        old = before.get(name)
        if value is None or value == old:
            continue
        if isinstance(value, dict) and isinstance(old, dict):
            if inner := merge_patch(old, value):
                patch[name] = inner
        else:
            patch[name] = value
    return patch


def applied(target: Json, patch: Json) -> Json:
    """What the browser makes of it."""
    out = dict(target)
    for name, value in patch.items():
        if value is None:
            out.pop(name, None)
        elif isinstance(value, dict):
            old = out.get(name)
            out[name] = applied(old if isinstance(old, dict) else {}, value)
        else:
            out[name] = value
    return out
