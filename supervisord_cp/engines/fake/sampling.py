"""The parameters of a request that change what comes back."""

import zlib
from dataclasses import dataclass
from typing import Any

from supervisord_cp.engines.fake.bodies import Body, bad_request, optional
from supervisord_cp.engines.fake.http1 import Request
from supervisord_cp.engines.fake.options import Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The parameters of a request that change what comes back."""

    max_tokens: int | None = None
    n: int = 1
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    priority: int = 0
    salt: int = 0


def read_sampling(request: Request, body: Body, options: Options, max_tokens: int | None) -> Sampling:
    """The sampling parameters of a body; `max_tokens` was found by the endpoint.

    Raises:
        ApiError: one is out of range.
    """
    if max_tokens is not None:
        _check_max_tokens(max_tokens, options.max_model_len)
    temperature = optional(body, "temperature", float, 1.0)
    if temperature < 0:
        raise bad_request(f"temperature must be non-negative, got {temperature}.", "temperature", temperature)
    n = optional(body, "n", int, 1)
    if n < 1:
        raise bad_request(f"n must be at least 1, got {n}.", "n", n)
    if n > 1 and temperature == 0:
        raise bad_request(f"n must be 1 when using greedy sampling, got {n}.")
    header = request.headers.get("x-vllm-priority", "")
    priority = int(header) if header.lstrip("-").isdecimal() else optional(body, "priority", int, 0)
    if priority and not options.priority_scheduling:
        raise bad_request(f"Got priority {priority} but Priority scheduling is not enabled.")
    salt = optional(body, "cache_salt", str, "")
    return Sampling(
        max_tokens=max_tokens,
        n=n,
        stop=_stops(body.get("stop")),
        ignore_eos=optional(body, "ignore_eos", bool, False),
        priority=priority,
        salt=zlib.crc32(salt.encode(errors="replace")),
    )


def _check_max_tokens(value: int, limit: int) -> None:
    if value < 1:
        raise bad_request(f"max_tokens must be at least 1, got {value}.", "max_tokens", value)
    if value > limit:
        raise bad_request(
            f"max_tokens={value} cannot be greater than max_model_len={limit}. "
            "Please request fewer output tokens.",
            "max_tokens",
            value,
        )


def _stops(value: Any) -> tuple[str, ...]:
    stops = value if isinstance(value, list) else [value]
    return tuple(stop for stop in stops if isinstance(stop, str) and stop)
