"""Commands that change what is wanted."""

import pytest

from tests.cli.conftest import Run
from tests.cli.samples import CHAT, CPU_NODE, GPU, GPU_NODE, READY
from tests.cli.stub import StubCentral


@pytest.fixture
def fleet(central: StubCentral) -> StubCentral:
    central.says("deployments", [CHAT, CHAT | {"name": "embed"}])
    central.says("instances", [READY])
    central.says("nodes", [GPU_NODE, CPU_NODE])
    return central


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "drain"])
@pytest.mark.parametrize(
    ("target", "path", "body"),
    [
        ("chat", "deployments/chat", {}),
        ("chat-0", "instances/chat-0", {}),
        ("gpu-a", "nodes/gpu-a", {}),
        ("gpu-a:0", "nodes/gpu-a", {"gpu": GPU["uuid"]}),
        (f"gpu-a:{GPU['uuid']}", "nodes/gpu-a", {"gpu": GPU["uuid"]}),
        ("laptop:slot-1", "nodes/laptop", {"gpu": "slot-1"}),
    ],
)
def test_verbs(run: Run, fleet: StubCentral, verb: str, target: str, path: str, body: object) -> None:
    fleet.says(f"{path}/{verb}", {"instances": ["chat-0"]})
    result = run(verb, target)
    assert result.exit_code == 0, result.stderr
    assert fleet.posts == [(f"/api/v1/{path}/{verb}", body)]
    assert result.stdout.startswith(f"{verb} ")
    assert result.stdout.endswith(": chat-0\n")


def test_all_is_every_deployment(run: Run, fleet: StubCentral) -> None:
    assert run("drain", "all", "--deadline", "5m").exit_code == 0
    assert fleet.posts == [
        ("/api/v1/deployments/chat/drain", {"deadline_s": 300.0}),
        ("/api/v1/deployments/embed/drain", {"deadline_s": 300.0}),
    ]


def test_nothing_to_do_is_said(run: Run, fleet: StubCentral) -> None:
    fleet.says("instances/chat-0/start", {"instances": []})
    assert run("start", "chat-0").stdout == "start instance chat-0: nothing to do\n"


def test_an_unknown_target_lists_what_is_near(run: Run, fleet: StubCentral) -> None:
    result = run("stop", "chta")
    assert result.exit_code == 1
    assert result.stderr.startswith("supervisord-cp: nothing is named 'chta'; did you mean chat")
    assert not fleet.posts


def test_an_unknown_device_lists_those_that_are_there(run: Run, fleet: StubCentral) -> None:
    result = run("cordon", "laptop:slot-7")
    assert result.exit_code == 1
    assert "laptop has no device 'slot-7'; it has slot-0, slot-1" in result.stderr


@pytest.mark.parametrize("verb", ["cordon", "uncordon"])
@pytest.mark.parametrize(("node", "body"), [("gpu-a", {}), ("gpu-a:0", {"gpu": GPU["uuid"]})])
def test_cordons(run: Run, fleet: StubCentral, verb: str, node: str, body: object) -> None:
    fleet.says(f"nodes/gpu-a/{verb}", {"message": "as you wish"})
    result = run(verb, node)
    assert result.stdout == "as you wish\n"
    assert fleet.posts == [(f"/api/v1/nodes/gpu-a/{verb}", body)]


def test_only_nodes_are_cordoned(run: Run, fleet: StubCentral) -> None:
    assert run("cordon", "chat").exit_code == 1
    assert not fleet.posts


def test_forget(run: Run, fleet: StubCentral) -> None:
    fleet.says("nodes/gpu-a/forget", {"message": "gpu-a is forgotten"})
    assert run("forget", "gpu-a").stdout == "gpu-a is forgotten\n"
    assert fleet.posts == [("/api/v1/nodes/gpu-a/forget", {})]


@pytest.mark.parametrize(("target", "code"), [("gpu-a:0", 2), ("gpu-b", 1), ("chat", 1)])
def test_only_whole_nodes_are_forgotten(run: Run, fleet: StubCentral, target: str, code: int) -> None:
    assert run("forget", target).exit_code == code
    assert not fleet.posts


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (["3"], {"replicas": 3}),
        (["0", "--for", "30m"], {"replicas": 0, "for_s": 1800.0}),
        (["auto"], {"replicas": "auto"}),
    ],
)
def test_scale(run: Run, central: StubCentral, words: list[str], body: object) -> None:
    result = run("scale", "chat", *words)
    assert result.exit_code == 0, result.stderr
    assert central.posts == [("/api/v1/deployments/chat/scale", body)]


@pytest.mark.parametrize(
    "words",
    [["scale", "chat", "many"], ["scale", "chat", "auto", "--for", "5m"], ["drain", "x", "--deadline", "5x"]],
)
def test_nonsense_is_a_usage_error(run: Run, central: StubCentral, words: list[str]) -> None:
    assert run(*words).exit_code == 2
    assert not central.requests


def test_what_central_refuses_is_told(run: Run, central: StubCentral) -> None:
    central.says("deployments/chat/scale", {"error": "replicas must be between 0 and 10000"}, 400)
    result = run("scale", "chat", "99999")
    assert result.exit_code == 1
    assert result.stderr == "supervisord-cp: replicas must be between 0 and 10000\n"


def test_restart_router_asks_for_all_of_them(run: Run, fleet: StubCentral) -> None:
    fleet.says("routers/restart", {"routers": {"a:9000": "", "b:9000": ""}})
    result = run("restart", "router")
    assert result.exit_code == 0, result.stderr
    assert fleet.posts == [("/api/v1/routers/restart", {})]
    assert result.stdout == "router a:9000: restarted\nrouter b:9000: restarted\n"


def test_a_router_that_was_not_restarted_is_a_failure(run: Run, fleet: StubCentral) -> None:
    fleet.says("routers/restart", {"routers": {"a:9000": "", "b:9000": "unknown key"}})
    result = run("restart", "router")
    assert result.exit_code == 1
    assert result.stdout == "router a:9000: restarted\n"
    assert "router b:9000: unknown key\n" in result.stderr
    fleet.says("routers/restart", {"routers": {}})
    assert "no router is connected" in run("restart", "router").stderr


def test_an_unlisted_instance_is_ended_when_that_is_said(run: Run, fleet: StubCentral) -> None:
    fleet.says("instances/chat-0/stop", {"instances": ["chat-0"]})
    assert run("stop", "chat-0", "--unlisted").stdout == "stop instance chat-0: chat-0\n"
    assert fleet.posts == [("/api/v1/instances/chat-0/stop", {"unlisted": True})]
    refused = run("stop", "chat", "--unlisted")
    assert refused.exit_code == 2
    assert "--unlisted ends one instance by its name, and chat is none" in refused.stderr
