"""What routers put out of rotation by themselves is shown with the instance."""

import pytest

from supervisord_cp.central.ejections import in_words
from supervisord_cp.central.explain import explain_instance
from supervisord_cp.central.views import instances, status
from supervisord_cp.cli.sheets import instances_sheet
from supervisord_cp.model.base import Incarnation
from supervisord_cp.model.router import OutOfRotation
from tests.central.fleet import World, deployment

OUT = OutOfRotation(incarnation=Incarnation("x"), cause="failures", why="3 answers in a row failed")
TRIED = OutOfRotation(incarnation=Incarnation("x"), cause="latency", why="slow", on_trial=True, trials_left=2)


def test_an_instance_that_a_router_has_ejected_says_so() -> None:
    world = World(deployment(replicas=2))
    agent, first, second = world.agent(), world.router("r1"), world.router("r2")
    world.run(8.0, first, second)
    incarnation = agent.instances["chat-1"].incarnation
    first.rotation = (
        OutOfRotation(incarnation=incarnation, cause="failures", why="3 answers in a row failed", for_s=4.5),
    )
    first.report()
    well, bad = instances(world.controller)
    assert (well["ejected"], well["message"]) == ([], "")
    assert bad["ejected"] == [
        {
            "router": "r1",
            "cause": "failures",
            "message": "3 answers in a row failed",
            "for_s": 4.5,
            "times": 1,
            "on_trial": False,
            "trials_left": 1,
        }
    ]
    words = "1 of 2 routers has it out of rotation: 3 answers in a row failed"
    assert bad["message"] == words
    assert (bad["state"], bad["ready"]) == ("ready", True)
    assert instances_sheet([bad]).rows[0][-1] == words
    told = explain_instance(world.controller, "chat-1")
    assert told is not None
    assert told["instance"]["message"] == words
    assert status(world.controller)["problems"] == [f"chat-1: ready ({words})"]
    first.rotation = ()
    first.report()
    assert status(world.controller)["healthy"]


@pytest.mark.parametrize(
    ("ejections", "routers", "words"),
    [
        ([], 1, ""),
        ([("r", OUT)], 1, "the router has it out of rotation: 3 answers in a row failed"),
        (
            [("r", TRIED)],
            1,
            "the router has it out of rotation: slow; on trial, 2 more requests must go well",
        ),
        ([("r", OUT), ("s", OUT)], 3, "2 of 3 routers have it out of rotation: 3 answers in a row failed"),
    ],
)
def test_in_words(ejections: list[tuple[str, OutOfRotation]], routers: int, words: str) -> None:
    assert in_words(ejections, routers) == words
