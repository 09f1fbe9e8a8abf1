"""Every policy has a page, its parameters are those of the policy, and what pages show can be used."""

import json
import math
import re
from pathlib import Path

import pytest
import tomli
from msgspec.structs import replace

from supervisord_cp.builtin.routers.presets import PRESETS
from supervisord_cp.config.findings import Level
from supervisord_cp.config.load import read
from supervisord_cp.plugin_host.catalog import builtin_specs
from supervisord_cp.plugin_host.checks import policy_findings
from supervisord_cp.plugin_host.loading import load_source
from supervisord_cp.plugin_host.registry import ROUTING_KINDS, builtin_registry
from supervisord_cp.plugin_host.source import read_source
from supervisord_cp.plugin_host.trial import Subject, judge
from supervisord_cp.policy.declare import PolicyKind
from supervisord_cp.policy.params import names_of, read_params
from supervisord_cp.policy.testing import context, fleet, request
from tests.shape.sources import ROOT

DOCS = ROOT / "docs"
PAGES = sorted((DOCS / "policies").glob("*.md"))
OVERVIEW = (DOCS / "policies.md").read_text()
STEPS = (DOCS / "policies" / "steps.md").read_text()
NOT_POLICIES = {"steps", "fair-share", "experiment", "values"}


def params_of(name: str) -> type | None:
    return PRESETS[name].params if name in PRESETS else builtin_specs()[name].params


def pages() -> dict[str, str]:
    return {path.stem: path.read_text() for path in PAGES}


def test_every_policy_but_scalers_has_a_page() -> None:
    kinds = ROUTING_KINDS | {PolicyKind.SCHEDULER, PolicyKind.PLACER}
    policies = {name for name, spec in builtin_specs().items() if spec.kind in kinds} | set(PRESETS)
    steps = set(re.findall(r"^\| `(\w+)` \| (?:filter|scorer|picker) \|", STEPS, re.MULTILINE))
    assert policies - steps == set(pages()) - NOT_POLICIES
    assert steps <= policies
    for name in policies - steps:
        assert f"[{name}](policies/{name}.md)" in OVERVIEW


def test_presets_are_what_the_page_says() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|$", STEPS, re.MULTILINE))
    assert told == {
        name: ", ".join(f"`{step.use}`" for step in preset.steps(preset.params()))
        for name, preset in PRESETS.items()
    }


@pytest.mark.parametrize("name", sorted(set(pages()) - NOT_POLICIES))
def test_parameters_and_their_defaults_are_those_of_the_policy(name: str) -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", pages()[name], re.MULTILINE))
    params = params_of(name)
    if params is None:
        assert told == {}
        assert "It has no parameters." in pages()[name]
        return
    defaults = {field: json.loads(json.dumps(getattr(params(), field))) for field in names_of(params)}
    assert {field: tomli.loads(f"v = {text}")["v"] for field, text in told.items()} == defaults


@pytest.mark.parametrize("path", [*PAGES, DOCS / "policies.md"], ids=lambda path: path.stem)
def test_configurations_that_pages_show_are_fine(path: Path) -> None:
    for block in re.findall(r"^```toml\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
        table = "" if block.startswith("[") else '[deployments.chat]\nengine = "fake"\nmodel = "m"\n'
        reading = read(table + block)
        findings = policy_findings(reading, builtin_registry())
        assert reading.problems(Level.ERROR, findings) == ()


EXAMPLES = re.findall(r"^```python\n(.*?)^```", OVERVIEW, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES)
def test_policies_that_are_shown_can_be_used(text: str) -> None:
    verdict = judge(Subject(path="shown.py", text=text.encode()))
    assert verdict.problems == ()
    assert verdict.cases


def test_the_policy_that_reads_prometheus_takes_missing_for_what_it_is() -> None:
    (text,) = (text for text in EXAMPLES if "context.query" in text)
    spec = load_source(read_source("cool.py", text.encode()))
    params = read_params({}, spec.params)
    heat = {"chat-0": 80.0, "chat-1": 60.0, "chat-2": math.nan}
    seen = context(params, queries={"gpu_heat": heat})
    assert spec.target(request(), fleet(4), seen) == [-80.0, -60.0, -70.0, -70.0]
    assert spec.target(request(), fleet(2), replace(seen, now=seen.now + 60.0)) == [-70.0, -70.0]
    assert spec.target(request(), fleet(1), context(params)) == [-70.0]


def test_each_page_says_when_to_use_it_and_when_not() -> None:
    for name, text in pages().items():
        if name not in NOT_POLICIES:
            assert text.startswith(f"# {name}\n")
            assert re.search(r"^\*\*Use it\*\* ", text, re.MULTILINE), name
            assert re.search(r"^\*\*Not\*\* ", text, re.MULTILINE), name
