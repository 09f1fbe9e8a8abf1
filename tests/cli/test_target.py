"""What a TARGET means."""

import pytest

from supervisord_cp.cli.target import Names, Target, UnknownTarget, resolve
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


def test_all_of_nothing_is_nothing() -> None:
    assert resolve("all", Names(deployments=(), instances=(), nodes={})) == ()
