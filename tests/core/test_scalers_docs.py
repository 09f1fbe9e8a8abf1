"""What the documentation of autoscaling shows works."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from supervisord_cp.core.scaling.scalers import ask, bind
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.reason import ReasonCode
from supervisord_cp.model.scaling import Behavior
from supervisord_cp.model.signal import SignalName
from supervisord_cp.policy import declared
from tests.core.scaling_kit import KNOWN, demand, view

PAGE = (Path(__file__).parents[2] / "docs" / "autoscaling.md").read_text()
TOML = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
(PYTHON,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def autoscale(block: str) -> dict:
    """The autoscale table of a block, which may be all there is of it."""
    read = tomllib.loads(block)
    return read.get("deployments", {}).get("chat", {}).get("autoscale", read)


@pytest.mark.parametrize("block", TOML)
def test_configurations(block: str) -> None:
    table = autoscale(block)
    uses = [msgspec.convert(use, PolicyUse) for use in table.get("scalers", ())]
    for use in uses:
        assert ask(bind(use, KNOWN), view()).proposal.reason.code is not ReasonCode.SCALER_FAILED
    rules = msgspec.convert(table.get("behavior", {}), Behavior)
    assert uses or rules != Behavior() or not table.keys() & {"scalers", "behavior"}


def test_the_scaler_that_it_writes() -> None:
    made: dict = {"__name__": "high_water"}
    exec(compile(PYTHON, "high_water.py", "exec"), made)
    spec = declared(made["high_water"])
    assert spec is not None
    one = bind(PolicyUse(use="high_water", params={"per_replica": 4}), {"high_water": spec})
    busy = ask(one, view(signals=demand(inflight=20)))
    assert busy.proposal.replicas == 5
    assert ask(one, view(signals=demand(inflight=2)), busy.memory).proposal.replicas == 5
    assert ask(one, view(), busy.memory).proposal.replicas is None


def test_every_scaler_parameter_and_signal_is_described() -> None:
    described = set(re.findall(r"[a-z_]+", PAGE))
    for name, spec in KNOWN.items():
        assert name in described
        assert spec.params is not None
        assert set(spec.params.__struct_fields__) <= described, name
    assert {str(name) for name in SignalName} <= described
