"""What must hold for all values and reasons."""

import ast
import gc

import pytest

from supervisord_cp.model.reason import Reason, ReasonCode, render
from tests.shape.sources import modules


def test_every_value_is_frozen_and_keyword_only() -> None:
    """msgspec does not inherit `kw_only`, and a subclass may take `frozen` back."""
    loose = [
        f"{module.name}:{node.lineno} {node.name}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id == "Value" for base in node.bases)
        and not {("frozen", True), ("kw_only", True)}
        <= {(kw.arg, kw.value.value) for kw in node.keywords if isinstance(kw.value, ast.Constant)}
    ]
    assert loose == []


@pytest.mark.parametrize("code", ReasonCode)
def test_every_reason_can_be_told_without_its_parameters(code: ReasonCode) -> None:
    assert bool(render(Reason(code=code))) is (code is not ReasonCode.NONE)


def test_the_garbage_collector_does_not_look_at_values() -> None:
    assert not Reason(params={"seconds": 1}).__struct_config__.gc
    assert not gc.is_tracked(Reason(params={"seconds": 1}))
