"""What a TARGET means."""

import pytest

from supervisord_cp.cli.target import Names, Target, UnknownTarget, resolve, resolve_node
from supervisord_cp.errors import UsageError

NAMES = Names(
    deployments=("chat", "twice"),
    instances=("chat-0", "twice-0"),
    nodes={"gpu-a": [{"uuid": "GPU-1", "index": 0}], "twice": [], "host:7": []},
)


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("chat", "deployment", "chat"),
        ("chat-0", "instance", "chat-0"),
        ("gpu-a", "node", "gpu-a"),
        ("host:7", "node", "host:7"),
        ("deployment/twice", "deployment", "twice"),
        ("node/twice", "node", "twice"),
    ],
)
def test_names(text: str, kind: str, name: str) -> None:
    assert resolve(text, NAMES) == (Target(kind=kind, id=name),)


def test_a_name_of_two_things_must_be_told_apart() -> None:
    with pytest.raises(UsageError, match="write deployment/twice or node/twice"):
        resolve("twice", NAMES)


@pytest.mark.parametrize("text", ["instance/chat", "gpu-b:0", "gpu-a:", ":0", "", "nothing/like/it"])
def test_unknown(text: str) -> None:
    with pytest.raises(UnknownTarget):
        resolve(text, NAMES)


def test_without_anything_near_the_deployments_are_listed() -> None:
    with pytest.raises(UnknownTarget, match="deployments are chat, twice"):
        resolve("zzzzzzz", NAMES)


@pytest.mark.parametrize(
    ("text", "said"), [("zz", "nodes are gpu-a, twice"), ("gpu-b", "did you mean gpu-a")]
)
def test_where_a_node_is_meant_nodes_are_suggested(text: str, said: str) -> None:
    with pytest.raises(UnknownTarget, match=said):
        resolve_node(text, NAMES)


@pytest.mark.parametrize("device", ["1", "slot-1"])
def test_slots_have_numbers_too(device: str) -> None:
    names = Names(deployments=(), instances=(), nodes={"a": [{"id": "slot-0"}, {"id": "slot-1"}]})
    assert resolve(f"a:{device}", names) == (Target(kind="node", id="a", gpu="slot-1"),)


def test_all_of_nothing_is_nothing() -> None:
    assert resolve("all", Names(deployments=(), instances=(), nodes={})) == ()
