"""The knobs of the fake engine: its speed, its start-up and its faults.

Each is the flag `--fake-<name>`, a key of the JSON object in the environment variable FAKE_VLLM, and, when
it is *live*, a key of `POST /fake/faults`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, get_args

ENVIRONMENT: Final = "FAKE_VLLM"
CONTROL: Final = "FAKE_VLLM_CONTROL"
"""Environment variable: "1" opens `/fake/faults`."""


class KnobError(ValueError):
    """A knob that does not exist or a value that does not fit it."""


def _knob(default: Any, *choices: str, live: bool = False) -> Any:
    return field(default=default, metadata={"live": live, "choices": choices})


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """All knobs. Optional numbers are off while they are None."""

    version: str = _knob("0.32.0")
    itl_ms: float = _knob(2.0, live=True)
    itl_per_sequence_ms: float = _knob(0.02, live=True)
    prefill_tokens_per_s: float = _knob(100_000.0, live=True)
    first_token_ms: float = _knob(0.0, live=True)
    output_tokens: int = _knob(128, live=True)
    kv_tokens: int = _knob(262_144)

    load_s: float = _knob(0.0)
    compile_s: float = _knob(0.0)
    kv_s: float = _knob(0.0)
    capture_s: float = _knob(0.0)
    never_ready: bool = _knob(False)
    fail_start: str = _knob(
        "",
        "",
        "configuration",
        "cuda_oom",
        "gpu_memory",
        "kv_cache",
        "port_in_use",
        "gated_repo",
        "model_missing",
        "no_gpu",
        "nccl",
        "host_memory",
        "silent",
    )
    fail_code: int | None = _knob(None)

    exit_after_s: float | None = _knob(None, live=True)
    exit_code: int = _knob(1, live=True)
    engine_dies_after_s: float | None = _knob(None, live=True)
    on_engine_death: str = _knob("exit0", "exit0", "exit1", "stay", live=True)
    watchdog_s: float = _knob(5.0)
    ignore_sigterm: bool = _knob(False)
    shutdown_hang: bool = _knob(False, live=True)
    shutdown_s: float = _knob(0.0, live=True)
    leave_children: bool = _knob(False, live=True)
    escape: str = _knob("none", "none", "setsid", "double_fork")

    hang: bool = _knob(False, live=True)
    wake_garbled: bool = _knob(False, live=True)
    fail_first: int = _knob(0, live=True)
    fail_status: int = _knob(500, live=True)
    die_after_tokens: int | None = _knob(None, live=True)
    die_by: str = _knob("kill", "kill", "exit", live=True)
    cut_after_tokens: int | None = _knob(None, live=True)
    error_after_tokens: int | None = _knob(None, live=True)


KNOBS: Final = {knob.name: knob for knob in fields(Knobs)}
LIVE: Final = frozenset(name for name, knob in KNOBS.items() if knob.metadata["live"])


def kind_of(name: str) -> type:
    """bool, int, float or str: what a knob holds when it is on."""
    annotation = KNOBS[name].type
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)] or [annotation]
    kind = kinds[0]
    assert isinstance(kind, type)
    return kind


def update(knobs: Knobs, changes: Mapping[str, Any], *, live: bool) -> Knobs:
    """Knobs with `changes` applied; with `live`, only those that may change in a running engine.

    Raises:
        KnobError: an unknown name, a wrong type, or a knob that is fixed at the start.
    """
    checked = {name: _checked(name, value, live=live) for name, value in changes.items()}
    return replace(knobs, **checked)


def from_environment(text: str) -> dict[str, Any]:
    """The object in FAKE_VLLM; "" is an empty one.

    Raises:
        KnobError: not a JSON object of knobs.
    """
    if not text:
        return {}
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise KnobError(f"{ENVIRONMENT}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise KnobError(f"{ENVIRONMENT}: expected an object of knobs")
    return value


def _checked(name: str, value: Any, *, live: bool) -> Any:
    knob = KNOBS.get(name)
    if knob is None:
        raise KnobError(f"unknown knob {name!r}")
    if live and name not in LIVE:
        raise KnobError(f"knob {name!r} is fixed at the start")
    kind = kind_of(name)
    if value is None and knob.default is None:
        return None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise KnobError(f"knob {name!r}: expected {kind.__name__}, got {value!r}")
    if isinstance(value, int | float) and value < 0:
        raise KnobError(f"knob {name!r}: must not be negative, got {value!r}")
    choices = knob.metadata["choices"]
    if choices and value not in choices:
        raise KnobError(f"knob {name!r}: expected one of {', '.join(filter(None, choices))}, got {value!r}")
    return value
