"""All engines by kind."""

from supervisord_cp.engines.base import Engine, Engines
from supervisord_cp.engines.command import CommandEngine
from supervisord_cp.engines.fake_launch import FakeEngine
from supervisord_cp.engines.vllm import VllmEngine


def all_engines() -> Engines:
    """Every engine that an agent can launch."""
    engines: tuple[Engine, ...] = (VllmEngine(), FakeEngine(), CommandEngine())
    return {engine.kind: engine for engine in engines}
