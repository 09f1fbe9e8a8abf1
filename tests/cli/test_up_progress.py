"""What `up` says while engines load and change."""

from typing import Any

import pytest

from supervisord_cp.cli.up_progress import Progress, all_ready, ready_line, routed
from tests.cli.samples import CHAT, CRASHED, STARTING, STATUS


def test_only_news_is_said() -> None:
    progress = Progress()
    assert progress.news([STARTING], []) == ["chat-1: starting, loading weights, about 41s left"]
    assert progress.news([STARTING | {"eta_s": 38.0}], []) == []
    assert progress.news([STARTING | {"eta_s": 12.0}], []) == [
        "chat-1: starting, loading weights, about 12s left"
    ]
    ready = STARTING | {"state": "ready", "ready": True, "phase": "ready", "eta_s": None}
    assert progress.news([ready], []) == ["chat-1: ready"]
    assert progress.news([ready | {"uptime_s": 9.0, "requests_running": 3}], []) == []
    assert progress.news([ready | {"incarnation": "chat-1.cc"}], []) == ["chat-1: ready"]
    assert progress.news([CRASHED], []) == ["chat-2: crashed, last exit signal 9 (killed), 12s ago"]


def test_how_a_life_ended_is_said_once_with_its_evidence() -> None:
    progress = Progress()
    last = {"code": 1, "signal": None, "cause": "configuration", "age_s": 0.1, "detail": "no such model"}
    crashed = CRASHED | {"last_exit": last}
    assert progress.news([crashed], []) == [
        "chat-2: crashed, last exit code 1 (configuration), 0.1s ago: no such model"
    ]
    assert progress.news(
        [STARTING | {"id": "chat-2", "phase": "", "eta_s": None, "last_exit": last}], []
    ) == ["chat-2: starting"]


def test_a_life_that_ended_between_two_looks_is_told() -> None:
    progress = Progress()
    ready = STARTING | {"state": "ready", "ready": True, "phase": "ready", "eta_s": None}
    progress.news([ready], [])
    last = {"code": None, "signal": 9, "cause": "killed", "age_s": 0.4, "detail": ""}
    again = STARTING | {"restarts": 1, "last_exit": last, "phase": "", "eta_s": 0.1}
    assert progress.news([again], []) == ["chat-1: ended, signal 9 (killed)", "chat-1: starting"]
    assert progress.news([ready | {"restarts": 1, "last_exit": last, "incarnation": "chat-1.cc"}], []) == [
        "chat-1: ready"
    ]


def test_what_is_about_to_start_is_no_news() -> None:
    gated = STARTING | {"state": "gated", "phase": "", "eta_s": None, "message": "not taken over yet"}
    assert Progress().news([gated], []) == []
    waiting = gated | {"reason": "awaiting_memory", "message": "waiting for 20 GiB of GPU memory, 3 GiB free"}
    assert Progress().news([waiting], []) == ["chat-1: gated, waiting for 20 GiB of GPU memory, 3 GiB free"]


def test_a_replica_that_cannot_be_placed_is_said_once() -> None:
    progress = Progress()
    unplaced = CHAT | {"cannot_place": [{"message": "no free device"}, {"message": "no free device"}]}
    assert progress.news([], [unplaced]) == ["chat: cannot place a replica: no free device"]
    assert progress.news([], [unplaced]) == []
    assert progress.news([], [CHAT]) == []
    assert progress.news([], [unplaced]) == ["chat: cannot place a replica: no free device"]


def test_that_the_agent_is_still_starting_is_no_news() -> None:
    waiting = CHAT | {"cannot_place": [{"reason": "no_nodes", "message": "no node is connected"}]}
    assert Progress().news([], [waiting]) == []


@pytest.mark.parametrize(
    ("routers", "answer"),
    [
        ([], False),
        ([{"connected": True, "version": 6}], False),
        ([{"connected": False, "version": 7}], False),
        ([{"connected": False, "version": 6}, {"connected": True, "version": 7}], True),
    ],
)
def test_routed_is_a_router_with_the_current_view(routers: list[dict[str, Any]], answer: bool) -> None:
    assert routed(STATUS | {"routers": routers}) is answer


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"ready": 2, "wanted": 2, "cannot_place": []}, True),
        ({"ready": 1, "wanted": 2, "cannot_place": []}, False),
        ({"ready": 2, "wanted": 2, "cannot_place": [{"message": "no free device"}]}, False),
    ],
)
def test_all_are_ready_whatever_else_is_wrong(changes: dict[str, Any], answer: bool) -> None:
    assert all_ready({"healthy": False, "deployments": [CHAT | changes]}) is answer


def test_how_many_are_ready() -> None:
    assert ready_line(STATUS) == "2 of 2 engines ready."
    assert ready_line(STATUS | {"deployments": [CHAT | {"wanted": 0, "ready": 0}]}) == "Ready."


def test_a_problem_that_lasts_is_said_once() -> None:
    progress = Progress()
    assert progress.complaints(["no router is connected"], 100.0) == []
    assert progress.complaints(["no router is connected"], 109.0) == []
    assert progress.complaints(["no router is connected"], 110.0) == ["! no router is connected"]
    assert progress.complaints(["no router is connected"], 200.0) == []
    assert progress.complaints([], 201.0) == []
    assert progress.complaints(["no router is connected"], 202.0) == []
