"""What the documentation of engines must name."""

from pathlib import Path

import pytest

from supervisord_cp.engines import vllm_metrics
from supervisord_cp.engines.allow import BY_NAME_ONLY
from supervisord_cp.engines.command import KEY_VARIABLE
from supervisord_cp.engines.environment import OWNED
from supervisord_cp.engines.vllm import OWNED_FLAGS, VllmEngine
from supervisord_cp.engines.vllm_probe import WANTED
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.instance import ExitCause
from supervisord_cp.model.launch import EngineKind, SleepLevel
from tests.engines.samples import EVERYTHING, context, spec

TEXT = (Path(__file__).parents[2] / "docs" / "engines.md").read_text()

everything_set = VllmEngine().prepare(
    spec(model="/models/llama", gpus=2, sleep=SleepLevel.LEVEL1),
    context(
        device_kind="cpu",
        devices=(DeviceId("slot-0"), DeviceId("slot-1")),
        api_key="key",
        internal_ports=20000,
        dev_mode=True,
    ),
    EVERYTHING,
)
can_sleep = VllmEngine().prepare(
    spec(sleep=SleepLevel.LEVEL1), context(device_kind="cuda", dev_mode=True), EVERYTHING
)
metrics = [name for names in vars(vllm_metrics).values() if isinstance(names, tuple) for name in names]


@pytest.mark.parametrize("kind", EngineKind)
def test_kinds(kind: EngineKind) -> None:
    assert f"| `{kind}` |" in TEXT


@pytest.mark.parametrize(
    "flag",
    [*OWNED_FLAGS, *(part for part in (*everything_set.argv, *can_sleep.argv) if part.startswith("--"))],
)
def test_flags(flag: str) -> None:
    assert f"`{flag}`" in TEXT or f"`{flag} " in TEXT or f" {flag} " in TEXT


@pytest.mark.parametrize("name", [*everything_set.env, *can_sleep.env, *OWNED, *BY_NAME_ONLY, KEY_VARIABLE])
def test_variables(name: str) -> None:
    assert f"`{name}`" in TEXT


@pytest.mark.parametrize("name", metrics)
def test_metrics(name: str) -> None:
    assert f"`{name}`" in TEXT


@pytest.mark.parametrize("cause", ExitCause)
def test_causes(cause: ExitCause) -> None:
    assert f"| `{cause}` |" in TEXT


def test_flags_that_are_looked_for_are_used() -> None:
    assert {f"--{flag}" for flag in WANTED} <= set(everything_set.argv)
