"""The lifecycle over random histories, in a world whose processes obey nobody's timetable."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from supervisord_cp.core.instances import effects as do
from supervisord_cp.core.instances import events as ev
from supervisord_cp.core.instances.life import SLEEPY, Launch, Life, Stage
from supervisord_cp.core.instances.lifecycle import step, wake_at
from supervisord_cp.core.instances.show import shown, status_of
from supervisord_cp.model.base import Incarnation
from supervisord_cp.model.instance import ExitCause, InstanceState, Phase
from supervisord_cp.model.launch import RunState
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode
from tests.core.instances_kit import START, desired

WISHES = st.builds(
    desired,
    model=st.sampled_from(["a", "b"]),
    run=st.sampled_from([RunState.RUNNING] * 3 + [RunState.STOPPED, RunState.SLEEPING]),
    devices=st.sampled_from([("slot-0",), ("slot-1",)]),
    restart=st.integers(0, 3),
    draining=st.booleans(),
    start_timeout_s=st.sampled_from([30.0, 600.0]),
)
CAUSES = st.sampled_from(ExitCause)


class World:
    """One incarnation at most, as the back end would have it."""

    def __init__(self) -> None:
        self.application: object | None = None
        self.spawning: Launch | None = None
        self.incarnation: Incarnation | None = None
        """Its tree is not gone."""
        self.main_alive = False
        self.stop_asked = False
        self.count = 0
        self.command: do.Sleep | do.Wake | None = None
        """What it was told and has not done yet."""
        self.asleep = False


class Lifecycle(RuleBasedStateMachine):
    """Random wishes, random fates."""

    @initialize(wish=WISHES)
    def begin(self, wish: object) -> None:
        self.now = START
        self.world = World()
        self.life = Life(desired=wish)  # type: ignore[arg-type]
        self.forgotten = False
        self.deliver(ev.Tick())

    def deliver(self, event: ev.LifeEvent, chance: float = 0.5) -> None:
        outcome = step(self.life, event, now=self.now, chance=chance)
        self.life = outcome.life
        for effect in outcome.effects:
            self.perform(effect)

    def perform(self, effect: do.Effect) -> None:
        world = self.world
        match effect:
            case do.Admit():
                assert world.application is None
                assert world.incarnation is None
                assert world.spawning is None
                world.application = effect
            case do.Withdraw():
                assert world.application is not None
                world.application = None
            case do.Spawn():
                assert world.spawning is None, "one start at a time"
                assert world.incarnation is None, "never before the old tree is gone"
                assert self.life.wanted
                world.spawning = Launch.of(effect.desired)
            case do.Stop():
                assert world.incarnation is not None
                assert not (world.stop_asked and world.main_alive), "asked once"
                world.stop_asked, world.command = True, None
            case do.Sleep() | do.Wake():
                assert world.main_alive
                assert world.command is None, "one thing at a time"
                world.command = effect
            case do.SleepOn():
                assert isinstance(world.command, do.Wake)
                world.command = None
            case do.Forget():
                assert world.incarnation is None
                assert world.spawning is None
                assert self.life.removed
                assert not self.forgotten
                self.forgotten = True

    # wishes

    @rule(what=st.sampled_from(["want"] * 5 + ["unlist", "remove"]), wish=WISHES)
    def central_says(self, what: str, wish: object) -> None:
        if what == "want":
            self.deliver(ev.Wanted(desired=wish))  # type: ignore[arg-type]
        elif what == "unlist":
            self.deliver(ev.Unlisted())
        elif self.life.stage is not Stage.ABSENT:
            self.deliver(ev.Removed())

    @precondition(lambda self: self.life.stage is Stage.ABSENT)
    @rule(wish=WISHES)
    def wanted_anew(self, wish: object) -> None:
        """What was removed may be created again; nothing of it is left."""
        self.life = Life(desired=wish)  # type: ignore[arg-type]
        self.forgotten = False
        self.deliver(ev.Tick())

    # fates

    @precondition(lambda self: self.world.application is not None)
    @rule(admitted=st.booleans())
    def gate(self, admitted: bool) -> None:
        if admitted:
            self.world.application = None
            self.deliver(ev.Admitted())
        else:
            self.deliver(ev.Held(reason=Reason(code=ReasonCode.AWAITING_PORT)))

    @precondition(lambda self: self.world.spawning is not None)
    @rule(works=st.booleans())
    def spawn(self, works: bool) -> None:
        world = self.world
        world.spawning = None
        if not works:
            self.deliver(ev.SpawnFailed(detail="no"))
            return
        world.count += 1
        world.incarnation = Incarnation(f"i{world.count}")
        world.main_alive, world.stop_asked, world.asleep = True, False, False
        self.deliver(ev.Spawned(incarnation=world.incarnation, pid=world.count))

    @precondition(lambda self: self.world.main_alive)
    @rule(healthy=st.booleans())
    def probe(self, healthy: bool) -> None:
        wrong = Reason(code=ReasonCode.HEALTH_TIMEOUT)
        self.deliver(ev.ProbeOk() if healthy else ev.ProbeFailed(reason=wrong))

    @precondition(lambda self: self.world.main_alive and self.world.command is not None)
    @rule(outcome=st.sampled_from(["works", "works", "half", "fails", "held"]))
    def command(self, outcome: str) -> None:
        """It does what it was told, or begins to, or does not."""
        world, command = self.world, self.world.command
        if outcome == "held":
            if isinstance(command, do.Wake):
                self.deliver(ev.Held(reason=Reason(code=ReasonCode.AWAITING_DEVICE)))
            return
        if isinstance(command, do.Sleep):
            self.deliver(ev.Answered(text="x"))
        else:
            self.deliver(ev.Held(reason=NO_REASON))
        world.asleep = isinstance(command, do.Sleep) if outcome != "fails" else world.asleep
        if outcome == "half":  # and the agent may be restarted before it hears of it
            return
        world.command = None
        done = ev.FellAsleep() if isinstance(command, do.Sleep) else ev.Woken()
        self.deliver(
            done if outcome == "works" else ev.SleepFailed(reason=Reason(code=ReasonCode.SLEEP_FAILED))
        )

    @precondition(lambda self: self.world.main_alive)
    @rule(given_up=st.booleans())
    def stall(self, given_up: bool) -> None:
        self.deliver(ev.Stalled(reason=Reason(code=ReasonCode.STALLED)))
        assert self.life.stage is not Stage.READY
        if given_up:
            self.deliver(ev.GivenUp())
            assert self.life.stage is not Stage.DEGRADED or not self.life.stalled

    @precondition(lambda self: self.world.main_alive)
    @rule(io=st.none() | st.booleans())
    def movement(self, io: bool | None) -> None:
        frozen = ev.Frozen(reason=Reason(code=ReasonCode.STUCK_IN_PHASE))
        self.deliver(frozen if io is None else ev.Moved(io=io))
        assert io is not None or self.life.stage is not Stage.STARTING

    @precondition(lambda self: self.world.main_alive)
    @rule(phase=st.sampled_from(Phase))
    def log_line(self, phase: Phase) -> None:
        self.deliver(ev.PhaseSeen(phase=phase))

    @precondition(lambda self: self.world.main_alive)
    @rule(code=st.one_of(st.none(), st.integers(0, 3)))
    def exit(self, code: int | None) -> None:
        self.world.main_alive, self.world.command = False, None
        signal = 9 if code is None else None
        self.deliver(ev.Exited(code=code, signal=signal, requested=self.world.stop_asked))

    @precondition(lambda self: self.world.incarnation is not None and not self.world.main_alive)
    @rule(cause=CAUSES, chance=st.floats(0, 1))
    def tree_gone(self, cause: ExitCause, chance: float) -> None:
        self.world.incarnation = None
        self.deliver(ev.Gone(cause=cause), chance)

    @rule(seconds=st.floats(0, 1000))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.deliver(ev.Tick())

    @precondition(lambda self: self.world.application is None and self.world.spawning is None)
    @rule()
    def agent_restarts(self) -> None:
        """All that is left is what is on disk: the wish, the history, and the incarnation."""
        old, world = self.life, self.world
        if old.stage is Stage.ABSENT:
            return
        self.life = Life(desired=old.desired, listed=old.listed, removed=old.removed, history=old.history)
        if world.incarnation is not None and old.run is not None:
            run = old.run
            world.command = None
            if world.stop_asked and world.main_alive:
                world.stop_asked = False  # the keeper knows; the next agent asks again
            adopted = ev.Adopted(incarnation=run.incarnation, pid=world.count, launch=run.launch)
            self.deliver(adopted)
            if not world.main_alive:
                asked = old.stage is Stage.STOPPING
                self.deliver(ev.Exited(code=1, requested=asked))
        self.deliver(ev.Tick())

    # what holds always

    @invariant()
    def processes_are_where_the_life_says(self) -> None:
        if not hasattr(self, "life"):
            return
        world, stage = self.world, self.life.stage
        alive = {Stage.STARTING, Stage.ADOPTED, Stage.READY, Stage.DEGRADED}
        if stage in alive | SLEEPY:
            assert world.main_alive
        if stage is Stage.READY:
            assert not world.asleep, "nothing is sent to one that sleeps"
        if stage in {Stage.IDLE, Stage.ADMITTING, Stage.BACKOFF, Stage.ABSENT}:
            assert world.incarnation is None
            assert world.spawning is None
        if world.spawning is not None:
            assert stage is Stage.SPAWNING
        if stage is Stage.BACKOFF:
            due = wake_at(self.life)
            assert due is not None
            assert due <= self.now + 3600.0
        status = status_of(self.life, now=self.now)
        assert (status.pid is not None) == (world.main_alive and stage is not Stage.ABSENT)
        assert shown(self.life, self.now)[0] in InstanceState

    @rule()
    def all_goes_well(self) -> None:
        """Until what is wanted is reached."""
        for _ in range(12):
            self.behave()
        life = self.life
        if life.removed:
            assert life.stage is Stage.ABSENT
            assert self.forgotten
        elif life.desired.run is RunState.STOPPED:
            assert life.stage is Stage.IDLE
        elif life.desired.run is RunState.SLEEPING:
            assert life.stage in (Stage.IDLE, Stage.ASLEEP)
        else:
            assert life.stage is Stage.READY
            assert life.run is not None
            assert life.run.launch.serves(life.desired)

    def behave(self) -> None:
        """One round of a world that does what it is asked."""
        world = self.world
        if world.application is not None:
            self.gate(admitted=True)
        if world.spawning is not None:
            self.spawn(works=True)
        if world.stop_asked and world.main_alive:
            self.exit(code=0)
        if world.incarnation is not None and not world.main_alive:
            self.tree_gone(ExitCause.UNKNOWN, 1.0)
        if world.main_alive and not world.stop_asked:
            if self.life.stalled:
                self.deliver(ev.GivenUp())
            self.probe(healthy=True)
            if world.command is not None:
                self.command("works")
        due = wake_at(self.life)
        if self.life.stage is Stage.BACKOFF and due is not None:
            self.now = max(self.now, due)
        self.deliver(ev.Tick())

    def teardown(self) -> None:
        """From wherever a history has led."""
        if hasattr(self, "life"):
            self.all_goes_well()


Lifecycle.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestLifecycle = Lifecycle.TestCase
