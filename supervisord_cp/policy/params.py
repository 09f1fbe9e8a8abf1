"""Parameters of a policy, from the configuration's table to the type that the policy declares."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec import inspect


class ParamsError(ValueError):
    """Parameters that a policy does not take; the text goes on after the policy's name."""

    def __init__(self, message: str, *, param: str = "", hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.param = param
        """The parameter that is wrong, where one is."""
        self.hint = hint


def read_params(written: Mapping[str, Any], type_: type | None) -> Any:
    """The parameters as the policy wants them; None for a policy that takes none.

    Raises:
        ParamsError: an unknown parameter, or a value that does not fit.
    """
    if type_ is None:
        if written:
            raise ParamsError("takes no parameters", param=next(iter(written)))
        return None
    known = names_of(type_)
    for name in written:
        if name not in known:
            raise ParamsError(f'has no parameter "{name}"', param=name, hint=hint(name, known))
    try:
        return msgspec.convert(dict(written), type_)
    except msgspec.ValidationError as error:
        text, _, where = str(error).rpartition(" - at `$.")
        name = where.rstrip("`").partition(".")[0].partition("[")[0]
        if text and name in known:
            raise ParamsError(f"parameter {name}: {_lower(text)}", param=name) from error
        raise ParamsError(f"parameters: {_lower(str(error))}") from error


def names_of(type_: type) -> list[str]:
    """The names of its parameters."""
    match inspect.type_info(type_):
        case inspect.StructType(fields=fields) | inspect.DataclassType(fields=fields):
            return [field.encode_name for field in fields]
        case _:
            return []


def hint(name: str, known: Iterable[str]) -> str:
    """What may have been meant."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1)
    if near:
        return f'did you mean "{near[0]}"?'
    return "known: " + ", ".join(known) if known else "it has none"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
