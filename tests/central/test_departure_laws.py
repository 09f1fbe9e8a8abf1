"""Nothing ends while a router has a stream open on it: over generated histories of a whole fleet."""

from hypothesis import given, settings
from hypothesis import strategies as st

from supervisord_cp.central.operations import Operations
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.wire import messages as m
from tests.central.fleet import FakeAgent, FakeRouter, World, deployment

ROUTERS = st.integers(0, 1)
SECONDS = st.sampled_from([0.5, 2.0, 5.0])
ACTIONS = st.one_of(
    st.tuples(st.just("open"), ROUTERS, st.integers(0, 3)),
    st.tuples(st.just("open"), ROUTERS, st.integers(0, 3)),
    st.tuples(st.just("close"), ROUTERS),
    st.tuples(st.just("scale"), st.integers(0, 4)),
    st.tuples(st.just("restart")),
    st.tuples(st.just("central down"), SECONDS),
    st.tuples(st.just("agent down"), SECONDS),
    st.tuples(st.just("router away"), ROUTERS, SECONDS),
    st.tuples(st.just("wait"), SECONDS),
)
HISTORIES = st.lists(ACTIONS, min_size=3, max_size=20)
"""Shorter than the deadline of a drain in all; nobody is away for as long as a router is waited for."""


class LateRouter(FakeRouter):
    """Takes up what it is told a second later, and sends streams by what it knows then."""

    def __init__(self, world: World, name: str) -> None:
        self._untold: list[m.Message] = []
        self._coming: list[m.Message] = []
        self.away_s = 0.0
        super().__init__(world, name)

    def take(self, message: m.Message) -> bool:
        self._untold.append(message)
        return True

    def report(self) -> None:
        if self.away_s > 0:
            self.away_s -= 0.5
            if self.away_s <= 0:
                self.world.controller.routers.connected(self.name, "0", self.take)
            return
        super().report()
        coming, self._coming, self._untold = self._coming, self._untold, []
        for message in coming:
            super().take(message)

    def go_away(self, seconds: float) -> None:
        if self.away_s <= 0:
            self.world.controller.routers.gone(self.name)
        self._untold, self._coming = [], []
        self.away_s = max(self.away_s, seconds)

    def open(self, which: int) -> None:
        """A request, to one of those that this router would send it to."""
        there = [] if self.snapshot is None else self.routable()
        if there:
            incarnation = self.instances()[there[which % len(there)]].incarnation
            self.leases[incarnation] = self.leases.get(incarnation, 0) + 1

    def close(self) -> None:
        """The oldest request is done."""
        for incarnation in list(self.leases)[:1]:
            del self.leases[incarnation]


class Watched(FakeAgent):
    """An agent that objects when it is to end what somebody is served by."""

    routers: tuple[LateRouter, ...] = ()

    def converge(self) -> None:
        before = self._serving()
        super().converge()
        for incarnation in before - self._serving():
            assert not any(router.leases.get(incarnation) for router in self.routers), incarnation

    def _serving(self) -> set[str]:
        return {s.incarnation for s in self.instances.values() if s.state is InstanceState.READY}


class Story:
    """A fleet of two nodes and two routers to which things happen."""

    def __init__(self) -> None:
        self.world = World(deployment(replicas=3))
        self.agents = [Watched(self.world, name, 3) for name in "ab"]
        for agent in self.agents:
            agent.connect()
        self.routers = tuple(LateRouter(self.world, name) for name in ("r1", "r2"))
        for agent in self.agents:
            agent.routers = self.routers
        self.run(20.0)

    def run(self, seconds: float) -> None:
        self.world.run(seconds, *self.routers)

    def happens(self, what: str, *how) -> None:
        match what:
            case "open":
                self.routers[how[0]].open(how[1])
            case "close":
                self.routers[how[0]].close()
            case "scale":
                Operations(self.world.controller).scale("chat", how[0], None)
            case "restart":
                Operations(self.world.controller).deployment("chat", "restart", None)
            case "central down":
                self.world.restart()
                for agent in self.agents:
                    agent.connect()
                for router in self.routers:
                    router.go_away(how[0])
            case "agent down":
                self.agents[0].disconnect()
                self.run(how[0])
                self.agents[0].connect()
            case "router away":
                self.routers[how[0]].go_away(how[1])
            case "wait":
                self.run(how[0])
        self.run(0.5)


@settings(max_examples=60, deadline=None)
@given(HISTORIES)
def test_nothing_ends_while_a_stream_is_open_on_it(actions: list[tuple]) -> None:
    story = Story()
    for action in actions:
        story.happens(*action)
    story.run(20.0)
    for router in story.routers:
        router.leases = {}
    story.run(40.0)
    leaving = [a for a in story.world.controller.memory.assignments.values() if a.draining and not a.released]
    assert leaving == [], "and what has nothing open on it goes"
