"""What it takes to go from one configuration to another."""

import pytest

from supervisord_cp.config.derive import table_of
from supervisord_cp.config.effective import from_plain, plain
from supervisord_cp.config.load import parse
from supervisord_cp.config.plan import Change, ChangeKind, Effect, KeyChange, diff_configs, effect_of
from supervisord_cp.config.schema import Config

CHAT = '[deployments.chat]\nengine = "fake"\nmodel = "m"\nnodes = ["n"]\n'


def changes(old: str, new: str) -> tuple[Change, ...]:
    return diff_configs(parse(old), parse(new))


def keys(old: str, new: str) -> dict[str, tuple[str, str, Effect]]:
    """The changed keys of the only change."""
    (only,) = changes(old, new)
    return {key.key: (key.old, key.new, key.effect) for key in only.keys}


def test_equal_configurations_differ_in_nothing() -> None:
    assert changes(CHAT, f"# a comment\n{CHAT}replicas = 1\n") == ()
    assert diff_configs(parse(CHAT), from_plain(plain(parse(CHAT)))) == ()


def test_deployments_and_static_instances_come_and_go() -> None:
    static = '[[static_instances]]\nid = "s"\ndeployment = "chat"\nurl = "http://h:1"\n'
    other = CHAT.replace("chat", "other").replace('"m"', '"o"')
    assert changes(CHAT + other, CHAT + static) == (
        Change(kind=ChangeKind.REMOVED, table="deployments", name="other"),
        Change(kind=ChangeKind.ADDED, table="static_instances", name="s"),
    )
    assert changes(CHAT + static, CHAT) == (
        Change(kind=ChangeKind.REMOVED, table="static_instances", name="s"),
    )


@pytest.mark.parametrize(
    ("line", "key", "effect"),
    [
        ("gpus = 2", "gpus", Effect.NEW_REPLICAS),
        ("args.x = 1", "args.x", Effect.NEW_REPLICAS),
        ("env.A = '1'", "env.A", Effect.NEW_REPLICAS),
        ("served_name = 's'", "served_name", Effect.NEW_REPLICAS),
        ("aliases = ['x']", "aliases", Effect.NEW_REPLICAS),
        ("executable = 'x'", "executable", Effect.NEW_REPLICAS),
        ("stop_grace_s = 1", "stop_grace_s", Effect.NEW_REPLICAS),
        ("start_timeout_s = 1", "start_timeout_s", Effect.NEW_REPLICAS),
        ("replicas = 2", "replicas", Effect.LIVE),
        ("max_concurrency = 2", "max_concurrency", Effect.LIVE),
        ("priority = 2", "priority", Effect.LIVE),
        ("min_residency_s = 2", "min_residency_s", Effect.LIVE),
        ("slo.ttft_ms = 2", "slo.ttft_ms", Effect.LIVE),
        ("scheduler = 'x'", "scheduler", Effect.LIVE),
        ("router = ['x', 'y']", "router", Effect.LIVE),
        ("shadow = 'x'", "shadow", Effect.LIVE),
        ("allow_paths = ['/x']", "allow_paths", Effect.LIVE),
        ("sleep = 'level1'", "sleep", Effect.NEW_REPLICAS),
    ],
)
def test_what_a_deployments_key_takes(line: str, key: str, effect: Effect) -> None:
    assert {name: change[2] for name, change in keys(CHAT, f"{CHAT}{line}\n").items()} == {key: effect}


def test_a_change_says_what_was_and_what_will_be() -> None:
    old = f"{CHAT}replicas = 2\nargs = {{ x = 1, y = 'x' }}\nscheduler = 's'\n"
    new = f"{CHAT}args.y = 'y'\nscheduler = {{ use = 's', params = {{ p = 1 }} }}\nautoscale.max = 4\n"
    found = keys(old, new)
    assert found.pop("autoscale")[1].startswith("{ min = 1, max = 4, idle_s = 600.0, ")
    assert found == {
        "args.x": ("1", "", Effect.NEW_REPLICAS),
        "args.y": ('"x"', '"y"', Effect.NEW_REPLICAS),
        "replicas": ("2", "", Effect.LIVE),
        "scheduler": ('"s"', '{ use = "s", params = { p = 1 } }', Effect.LIVE),
    }


def test_a_one_and_a_true_are_not_the_same() -> None:
    assert keys(f"{CHAT}args.x = 1\n", f"{CHAT}args.x = true\n") == {
        "args.x": ("1", "true", Effect.NEW_REPLICAS)
    }


def test_another_engine_is_another_start() -> None:
    (change,) = changes(CHAT, CHAT.replace('"fake"', '"vllm"'))
    assert change.effect is Effect.NEW_REPLICAS
    assert str(change) == 'deployments.chat changed (new replicas): engine "fake" -> "vllm"'


def test_a_changed_secret_is_seen_but_not_shown() -> None:
    old, new = (f"{CHAT}env = {{ HF_TOKEN = '{value}' }}\n" for value in ("one", "two"))
    assert keys(old, new) == {"env.HF_TOKEN": ('"***"', '"***"', Effect.NEW_REPLICAS)}


def test_static_instances_change_at_once() -> None:
    static = '[[static_instances]]\nid = "s"\ndeployment = "chat"\nurl = "http://h:1"\n'
    (change,) = changes(CHAT + static, CHAT + static.replace("h:1", "h:2"))
    assert (change.subject, change.effect) == ("static_instances.s", Effect.LIVE)
    assert change.keys == (KeyChange(key="url", old='"http://h:1"', new='"http://h:2"'),)


def test_daemons_read_most_keys_when_they_start() -> None:
    assert keys("", "[central]\ngpu_budget = 2\nsettle_s = 1\n") == {
        "gpu_budget": ("0", "2", Effect.LIVE),
        "settle_s": ("5.0", "1.0", Effect.RESTART),
    }
    assert keys("", "[agent.allow]\ndev_mode = true\n") == {
        "allow.dev_mode": ("false", "true", Effect.RESTART)
    }
    assert keys("", "[prometheus]\nurl = 'http://h'\n") == {"url": ('""', '"http://h"', Effect.LIVE)}
    assert keys("", "[router]\ntls_cert = 'c'\ntls_key = 'k'\n").keys() == {"tls_cert", "tls_key"}


def test_a_change_takes_the_most_that_one_of_its_keys_takes() -> None:
    (change,) = changes("", "[central]\ngpu_budget = 2\nsettle_s = 1\n")
    assert change.effect is Effect.RESTART


def test_every_table_of_a_daemon_has_an_effect() -> None:
    for name, key in table_of(Config).keys.items():
        if name not in ("deployments", "static_instances"):
            assert effect_of((name, *list(key.kind.keys)[:1])) in Effect  # type: ignore[attr-defined]
