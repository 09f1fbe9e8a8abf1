"""The examples of docs/python-api.md run, and what it says exists is there."""

import inspect
import re

import pytest

import supervisord_cp
from supervisord_cp import sdk
from supervisord_cp.core.routing.rejection import RejectReason
from supervisord_cp.plugin_host.registry import ROUTING_KINDS, SCHEDULER_KINDS, builtin_registry
from tests.sdk.programs import Fleet, run
from tests.shape.sources import ROOT

TEXT = (ROOT / "docs/python-api.md").read_text()
PROGRAMS = {
    title: code
    for title, body in re.findall(r"^##+ ([^\n]+)\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    for code in re.findall(r"^```python\n(.*?)^```", body, re.MULTILINE | re.DOTALL)
}
PRINTS = {
    "One host": r"local-gpu-[0-3] 100 .+\n",
    "Several hosts": r"(machine-[ab]-gpu-[0-3] .+?\n){32}\d+ ms\n",
    "Tensor parallel": r"meta-llama/Llama-2-70b tp4-instance .+\nmeta-llama/Llama-2-7b small .+\n",
    "Your own": r"600 gpu-3\n5 gpu-[0-3]\n",
}


def test_each_program_is_run() -> None:
    assert set(PROGRAMS) == set(PRINTS)


@pytest.mark.process
@pytest.mark.parametrize("title", PRINTS)
def test_program(title: str, fleet: Fleet) -> None:
    printed = run(fleet.patched(PROGRAMS[title]))
    assert re.fullmatch(PRINTS[title], printed, re.DOTALL), printed


def table(heading: str) -> set[str]:
    """The names in the first column of a table."""
    body = re.search(rf"^\| {heading} \|.*?(?=\n\n|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert body is not None
    rows = body[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_scheduling_policies_are_those_that_there_are() -> None:
    assert table("`scheduling_policy`") == set(builtin_registry().names(SCHEDULER_KINDS))


def test_routing_strategies_are_there() -> None:
    assert table("`routing_strategy`") <= set(builtin_registry().names(ROUTING_KINDS))


def test_reasons_are_those_that_can_be() -> None:
    ours = {"engine_error", "invalid_answer", "cancelled", "stopped"}
    told = table("reason")
    assert ours <= told
    assert told - ours <= set(RejectReason)


def test_every_method_is_mentioned() -> None:
    methods = {
        name for name, _ in inspect.getmembers(sdk.ControlPlaneManager, callable) if not name.startswith("_")
    }
    assert {name for name in methods if f"{name}(" not in TEXT and f"`{name}`" not in TEXT} == set()


def test_the_package_exports_the_same_names() -> None:
    assert set(supervisord_cp.__all__) - {"__version__"} == set(sdk.__all__)
    for name in sdk.__all__:
        assert getattr(supervisord_cp, name) is getattr(sdk, name)
    assert set(supervisord_cp.__all__) <= set(dir(supervisord_cp))
    with pytest.raises(AttributeError, match="nothing"):
        _ = supervisord_cp.nothing
