"""Recorded output of real engines, and specifications to start some."""

from pathlib import Path
from typing import Any

from supervisord_cp.engines.base import Capabilities, LaunchContext
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.launch import EngineKind, LaunchSpec

DATA = Path(__file__).parent / "data"

EVERYTHING = Capabilities(
    executable="/opt/vllm/bin/vllm",
    version="0.32.0",
    flags=frozenset({"shutdown-timeout", "disable-access-log-for-endpoints"}),
    switches=frozenset({"disable-log-stats"}),
)
OLD = Capabilities(executable="/opt/vllm/bin/vllm", version="0.9.2")


def recorded(name: str) -> str:
    """A page or a log of vLLM 0.32."""
    return (DATA / name).read_text()


def labelled_lines(name: str) -> list[tuple[str, str]]:
    """The lines `LABEL | LINE` of a table."""
    lines = [line for line in recorded(name).splitlines() if not line.startswith("#")]
    return [(label, line) for label, _, line in (line.partition(" | ") for line in lines)]


def spec(engine: EngineKind = EngineKind.VLLM, **fields: Any) -> LaunchSpec:
    return LaunchSpec(
        engine=engine, **{"model": "meta-llama/Llama-3.1-8B", "served_names": ("llama",), **fields}
    )


def context(**fields: Any) -> LaunchContext:
    given = {
        "host": "127.0.0.1",
        "port": 8000,
        "device_kind": "cuda",
        "devices": (DeviceId("GPU-a"),),
        "device_indexes": (3,),
        "nonce": "n0nce",
        "instance": "chat-0",
    }
    return LaunchContext(**{**given, **fields})
