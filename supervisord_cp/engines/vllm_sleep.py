"""vLLM's sleep mode: when an engine is started with it, and how it is put to sleep and woken.

The routes are there with VLLM_SERVER_DEV_MODE=1 alone, next to others that nobody else should reach, and
vLLM's API key does not guard them. So an engine gets them only where its node allows them and its port is
keyed or on a loopback address.
"""

import ipaddress
from collections.abc import Mapping
from typing import Final

import msgspec

from supervisord_cp.engines.base import EngineCall, LaunchContext, SleepMode
from supervisord_cp.model.launch import ArgValue, LaunchSpec, SleepLevel

FLAG: Final = "enable-sleep-mode"
STATE_PATH: Final = "/is_sleeping"
CANARY: Final = "The capital of France is"
"""Shorter than a block of the prefix cache, so that it is computed anew each time."""
CANARY_TOKENS: Final = 8

_WAKE: Final[Mapping[SleepLevel, tuple[EngineCall, ...]]] = {
    SleepLevel.LEVEL1: (EngineCall(path="/wake_up"),),
    # The order of vLLM's documentation: memory for the weights, the weights, then memory for the KV cache.
    SleepLevel.LEVEL2: (
        EngineCall(path="/wake_up?tags=weights"),
        EngineCall(path="/collective_rpc", body={"method": "reload_weights"}),
        EngineCall(path="/wake_up?tags=kv_cache"),
    ),
}


def sleep_mode(
    spec: LaunchSpec, context: LaunchContext, flags: Mapping[str, ArgValue], devices: tuple[str, ...]
) -> SleepMode | None:
    """How to put an engine to sleep; None: it is started without sleep mode.

    `devices` are the kinds of device on which the engine can sleep; elsewhere it refuses to start with it.
    """
    if spec.sleep is SleepLevel.NONE or not context.dev_mode or context.device_kind not in devices:
        return None
    if not (context.api_key or is_loopback(context.host)) or flags.get(FLAG) is False:
        return None
    return SleepMode(
        sleep=(EngineCall(path=f"/sleep?level={'1' if spec.sleep is SleepLevel.LEVEL1 else '2'}"),),
        wake=_WAKE[spec.sleep],
        state_path=STATE_PATH,
        canary=EngineCall(
            path="/v1/completions",
            body={
                "model": spec.served_names[0] if spec.served_names else spec.model,
                "prompt": CANARY,
                "max_tokens": CANARY_TOKENS,
                "temperature": 0,
            },
        ),
    )


class _Choice(msgspec.Struct):
    text: str


class _Completion(msgspec.Struct):
    choices: list[_Choice]


def answer_of(body: bytes) -> str:
    """The text of the canary's answer.

    Raises:
        ValueError: it has none.
    """
    try:
        choices = msgspec.json.decode(body, type=_Completion).choices
    except msgspec.MsgspecError as error:
        raise ValueError(f"no completion: {error}") from error
    if not choices or not choices[0].text:
        raise ValueError("an empty answer")
    return choices[0].text


def is_loopback(host: str) -> bool:
    """Whether nobody outside of this host can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
