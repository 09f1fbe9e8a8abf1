"""From names to what decides: presets become steps, what cannot be used is passed over."""

from random import Random
from typing import Any

import pytest

from supervisord_cp.core.routing.shadow import RouterShadow, SchedulerShadow
from supervisord_cp.model.fleet import PolicyUse, RoutedDeployment
from supervisord_cp.plugin_host.binding import Binder
from supervisord_cp.policy.testing import candidate, context, fleet, request


def deployment(*router: PolicyUse | str, **more: Any) -> RoutedDeployment:
    uses = tuple(use if isinstance(use, PolicyUse) else PolicyUse(use=use) for use in router)
    routed = {"router": uses} if router else {}
    return RoutedDeployment(name="chat", names=("chat",), **(routed | more))  # type: ignore[arg-type]


def bound(*router: PolicyUse | str, **more: Any) -> tuple[Any, tuple[str, ...]]:
    binder = Binder()
    policies = binder.bind(deployment(*router, **more), Random(1))
    return policies, binder.book.problems.get("chat", ())  # type: ignore[call-overload]


def steps(policies: Any) -> list[tuple[str, float]]:
    return [(step.guard.name, step.weight) for step in policies.router.steps]


def test_the_defaults() -> None:
    policies, problems = bound()
    assert (steps(policies), policies.scheduler.name, policies.shadow, problems) == (
        [("load_balanced", 1.0)],
        "fifo",
        None,
        (),
    )


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        ("affinity", ["within_load", "rendezvous"]),
        ("locality", ["nearest", "load_balanced"]),
        ("prefix", ["within_load", "prefix_match"]),
    ],
)
def test_a_preset_is_a_list_of_steps(use: str, expected: list[str]) -> None:
    policies, problems = bound(use)
    assert [name for name, _ in steps(policies)] == expected
    assert problems == ()
    assert policies.needs_prefix is (use == "prefix")


def test_parameters_of_a_preset_reach_its_steps() -> None:
    use = PolicyUse(use="prefix", params={"bound": 2.0, "memory_mib": 1})
    (within, match), _ = bound(use)[0].router.steps, None
    assert (within.params.bound, match.params.memory_mib) == (2.0, 1.0)


def test_presets_and_steps_mix_with_weights() -> None:
    policies, _ = bound("affinity", PolicyUse(use="kv_aware", weight=0.5))
    assert steps(policies) == [("within_load", 1.0), ("rendezvous", 1.0), ("kv_aware", 0.5)]


def test_each_deployment_has_memory_of_its_own() -> None:
    binder = Binder()
    first, second = (binder.bind(deployment("round_robin"), Random(1)) for _ in range(2))
    both = fleet(2)
    picks = [p.router.choose(request(), both, context()).candidate.instance.id for p in (first, second)]
    assert picks == ["chat-0", "chat-0"]


@pytest.mark.parametrize(
    ("router", "left", "told"),
    [
        (["nope"], ["load_balanced"], 'no routing policy is called "nope"'),
        (["nope", "random"], ["random"], 'no routing policy is called "nope"'),
        (["fifo"], ["load_balanced"], '"fifo" is a scheduler'),
        ([PolicyUse(use="prefix", params={"x": 1})], ["load_balanced"], 'has no parameter "x"'),
        ([PolicyUse(use="kv_aware", params={"max_age_s": "y"})], ["load_balanced"], "parameter max_age_s"),
    ],
)
def test_what_cannot_be_used_is_passed_over(router: list[Any], left: list[str], told: str) -> None:
    policies, problems = bound(*router)
    assert [name for name, _ in steps(policies)] == left
    assert told in problems[0]
    assert policies.router.choose(request(), fleet(2), context())


def test_fifo_stands_in_for_a_scheduler_that_cannot_be_used() -> None:
    policies, problems = bound(scheduler=PolicyUse(use="prioriti"))
    assert policies.scheduler.name == "fifo"
    assert 'did you mean "priority"' in problems[0]


def test_problems_end_when_they_are_mended() -> None:
    binder = Binder()
    binder.bind(deployment("nope"), Random(1))
    assert binder.book.problems
    binder.bind(deployment("random"), Random(1))
    assert not binder.book.problems


@pytest.mark.parametrize(
    ("shadow", "kind", "told"),
    [
        ("random", RouterShadow, ""),
        ("prefix", RouterShadow, ""),
        ("priority", SchedulerShadow, ""),
        ("", type(None), ""),
        ("nope", type(None), 'shadow: no routing policy is called "nope"'),
        ("hpa", type(None), 'shadow: "hpa" is a scaler'),
    ],
)
def test_a_shadow_is_a_routing_policy_or_a_scheduler(shadow: str, kind: type, told: str) -> None:
    policies, problems = bound(shadow=shadow)
    assert isinstance(policies.shadow, kind)
    assert (problems[0] if problems else "").startswith(told)
    assert policies.needs_prefix is (shadow == "prefix")


def test_a_deployments_version_changes_with_its_policies_only() -> None:
    binder = Binder()
    assert binder.version(deployment("random")) == binder.version(deployment("random"))
    assert binder.version(deployment("random")) != binder.version(deployment("prefix"))
    assert binder.version(deployment()) != binder.version(deployment(shadow="random"))
    assert binder.version(deployment()) == binder.version(deployment(max_concurrency=7))


# --- presets do what they are for


def choose(policies: Any, *candidates: Any, **fields: Any) -> str:
    choice = policies.router.choose(request(**fields), candidates, context(request_tokens=300.0))
    return str(choice.candidate.instance.id)


def test_affinity_gives_way_when_its_instance_has_too_much_to_do() -> None:
    policies, _ = bound("affinity")
    home = choose(policies, *fleet(3), session="s")
    number = int(home[-1])
    idle = [candidate(n, booked_decode=100) for n in range(3)]
    assert choose(policies, *idle, session="s") == home
    idle[number] = candidate(number, booked_decode=50_000)
    away = choose(policies, *idle, session="s")
    assert away != home
    assert choose(policies, *idle, session="s") == away, "the second choice stays, too"


def test_prefix_stays_inside_the_load_bound() -> None:
    policies, _ = bound("prefix")
    prefix, ctx = tuple(range(100)), context()
    policies.router.dispatched(request(prefix=prefix), candidate(0), ctx)
    asked = {"prefix": prefix, "prompt_tokens": 100_000}
    assert choose(policies, candidate(0, booked_prefill=900), candidate(1), **asked) == "chat-0"
    assert choose(policies, candidate(0, booked_prefill=90_000), candidate(1), **asked) == "chat-1"
    policies.router.reset("chat-0.a", 0.0)
    assert choose(policies, candidate(0, booked_prefill=1), candidate(1), **asked) == "chat-1"


def test_locality_spills_when_its_own_are_loaded() -> None:
    policies, _ = bound(PolicyUse(use="locality", params={"zone": "z"}))
    near, far = candidate(0, zone="z", booked_decode=500), candidate(1)
    assert choose(policies, near, far) == "chat-0"
    assert choose(policies, candidate(0, zone="z", booked_decode=5000), far) == "chat-1"
