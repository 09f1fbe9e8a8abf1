"""The faults: each starts a supervisor with engines, breaks something, and says what came of it."""

import contextlib
import http.server
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from supervisors import observe
from supervisors.base import GRACE_S, Engine, Supervisor
from supervisors.observe import Identity, Streams, wait_for

ORPHANS_AFTER_S = 5.0
GIVE_UP_S = 40.0
HANG_S = 40.0
LOOP_S = 40.0
LOAD_S = 6.0
STRANGER_S = 10.0
FLEET = 3
QUICK_S = 0.002
"""Between two looks at a log."""


@dataclass
class Outcome:
    """A row of the table; None: does not apply, or (times) never within the time that was looked."""

    orphans: int | None = None
    """Processes of an ended engine that live 5 s later."""
    detected_s: float | None = None
    """Until the supervisor has noticed, unasked: its own log says so, or it has started another one."""
    served_s: float | None = None
    """Until a new engine answers."""
    beside: int = 0
    """Processes of the old engine that live then."""
    watched_s: float | None = None
    """How long was looked for that, if at all."""
    faulty: bool = False
    """Whether there was something to detect."""
    disturbed: int | None = None
    """Engines that were well and were ended or restarted."""
    streams: str = ""
    """Broken of all."""
    told: str | None = None
    """What the supervisor says of the end."""
    known: bool | None = None
    """Whether that names the cause."""
    note: str = ""


@dataclass
class Stage:
    """A running supervisor with engines that serve."""

    supervisor: Supervisor
    engines: list[Engine]
    trees: dict[str, set[Identity]] = field(default_factory=dict)
    mains: dict[str, int] = field(default_factory=dict)
    ends_told: int = 0
    """Of the first engine, before the fault."""

    @property
    def one(self) -> Engine:
        """The only, or first, engine."""
        return self.engines[0]

    def serves(self, engine: Engine) -> bool:
        """Whether it answers, by the supervisor's own account of where."""
        url = self.supervisor.url(engine)
        return bool(url) and observe.serves(url)

    def note_trees(self) -> None:
        """Remember the processes of all engines."""
        for engine in self.engines:
            tree = self.trees[engine.name] = observe.members(engine.mark)
            main = observe.main_of(tree)
            assert main is not None
            self.mains[engine.name] = main
        self.ends_told = self.supervisor.ends_told(self.one)

    def main(self, engine: Engine) -> int:
        """The noted API server."""
        return self.mains[engine.name]

    def left(self, engine: Engine) -> set[Identity]:
        """Noted processes that live."""
        return observe.alive(self.trees[engine.name])


@contextmanager
def staged(
    kind: type[Supervisor],
    number: int = 1,
    *,
    wait: bool = True,
    before: Callable[[list[Engine]], None] = lambda engines: None,
    **knobs: str | float | bool,
) -> Iterator[Stage]:
    """A supervisor; with `wait`, its engines serve and count as running. All is ended afterwards.
    `before` is called before it starts."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    first = observe.free_port(number + 1)
    spelled = {name.replace("_", "-"): value for name, value in {"itl_ms": 20, **knobs}.items()}
    engines = [Engine(f"engine{n}", f"{folder.name}:{n}", first + n, spelled) for n in range(number)]
    supervisor = kind(folder, engines)
    stage = Stage(supervisor, engines)
    before(engines)
    supervisor.start()
    try:
        if wait:
            for engine in engines:
                wait_for(lambda e=engine: stage.serves(e) and supervisor.look(e).up, "the first start")
            stage.note_trees()
        yield stage
    finally:
        supervisor.close()
        for engine in engines:
            while rest := observe.members(engine.mark):
                for one in rest:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(one.pid, signal.SIGKILL)
                time.sleep(0.02)
        shutil.rmtree(folder, ignore_errors=True)


def after(stage: Stage, cause: str, limit_s: float = GIVE_UP_S) -> Outcome:
    """Watch what becomes of the first engine after a fault that was made just now."""
    engine, supervisor = stage.one, stage.supervisor
    before, began, outcome = stage.main(engine), time.monotonic(), Outcome(watched_s=limit_s, faulty=True)
    look_at = 0.0
    while (past := time.monotonic() - began) < limit_s:
        if outcome.detected_s is None and supervisor.ends_told(engine) > stage.ends_told:
            outcome.detected_s = past
            continue
        if past < look_at:
            time.sleep(QUICK_S)
            continue
        look_at = past + observe.POLL_S
        now = observe.members(engine.mark) - stage.trees[engine.name] if outcome.served_s is None else set()
        if outcome.detected_s is None and now:
            outcome.detected_s = past
        # a new one serves only where the old one does not any more
        if now and observe.identity(before) not in stage.trees[engine.name] and stage.serves(engine):
            outcome.served_s = past
            outcome.beside = len(stage.left(engine))
        if outcome.orphans is None and past >= ORPHANS_AFTER_S and observe.identity(before) is None:
            outcome.orphans = len(stage.left(engine))
        if outcome.served_s is not None and outcome.orphans is not None:
            break
    if outcome.orphans is None:
        outcome.orphans = len(stage.left(engine)) if outcome.detected_s is not None else None
    _tell(stage, outcome, cause)
    return outcome


def _tell(stage: Stage, outcome: Outcome, cause: str) -> None:
    outcome.told = stage.supervisor.told(stage.one)
    outcome.known = bool(re.search(cause, outcome.told, re.IGNORECASE))


# --- engines that end


def api_server_killed(kind: type[Supervisor]) -> Outcome:
    """`kill -9` of the API server"""
    with staged(kind) as stage:
        os.kill(stage.main(stage.one), signal.SIGKILL)
        return after(stage, r"SIGKILL|signal 9")


def engine_core_killed(kind: type[Supervisor]) -> Outcome:
    """`kill -9` of `VLLM::EngineCore` (vLLM's API server exits 0 when it looks, every 5 s)"""
    with staged(kind) as stage:
        core = observe.titled(stage.trees[stage.one.name], "EngineCore")
        os.kill(core, signal.SIGKILL)
        return after(stage, r"engine.?(core|dead|died)")


def worker_killed(kind: type[Supervisor]) -> Outcome:
    """`kill -9` of `VLLM::Worker`"""
    with staged(kind) as stage:
        worker = observe.titled(stage.trees[stage.one.name], "Worker")
        os.kill(worker, signal.SIGKILL)
        return after(stage, r"engine.?(core|dead|died)|worker")


def exits_with_zero(kind: type[Supervisor]) -> Outcome:
    """the engine dies, and the API server exits 0 at once"""
    with staged(kind, watchdog_s=0.05) as stage:
        observe.post(f"{stage.supervisor.url(stage.one)}/fake/faults", {"engine_dies_after_s": 0.0})
        return after(stage, r"engine.?(core|dead|died)")


def children_left(kind: type[Supervisor]) -> Outcome:
    """it crashes, and its workers have left session and parent"""
    with staged(kind, escape="double_fork") as stage:
        os.kill(stage.main(stage.one), signal.SIGKILL)
        return after(stage, r"SIGKILL|signal 9")


# --- engines that do not do what they should


def hangs(kind: type[Supervisor]) -> Outcome:
    """it hangs with requests running, `/health` says 200"""
    with staged(kind) as stage:
        url = stage.supervisor.url(stage.one)
        streams = Streams({url: stage.one.name})
        try:
            observe.post(f"{url}/fake/faults", {"hang": True})
            outcome = after(stage, r"stall|stood still|no token|hang", HANG_S)
            waiting = streams.number - streams.lost()
            if waiting:
                outcome.note = f"{waiting} of {streams.number} clients still wait after {HANG_S:.0f} s"
            return outcome
        finally:
            streams.close()


def ignores_sigterm(kind: type[Supervisor]) -> Outcome:
    """an operator stops it, and it ignores SIGTERM"""
    with staged(kind, ignore_sigterm=True) as stage:
        return _stopped(stage)


def stopped_with_setsid(kind: type[Supervisor]) -> Outcome:
    """an operator stops it, and its workers have left the session"""
    with staged(kind, escape="setsid") as stage:
        return _stopped(stage)


def stopped_with_double_fork(kind: type[Supervisor]) -> Outcome:
    """an operator stops it, and its workers have left session and parent"""
    with staged(kind, escape="double_fork") as stage:
        return _stopped(stage)


def _stopped(stage: Stage) -> Outcome:
    stage.supervisor.stop_engine(stage.one)
    began = time.monotonic()
    gone = ""
    while time.monotonic() - began < GRACE_S + ORPHANS_AFTER_S:
        if not gone and not stage.left(stage.one):
            gone = f"all gone after {time.monotonic() - began:.1f} s"
        time.sleep(observe.POLL_S)
    left = stage.left(stage.one)
    new = observe.members(stage.one.mark) - stage.trees[stage.one.name]
    note = gone or "left: " + ", ".join(sorted(observe.title(one.pid).split(" ")[0] for one in left))
    return Outcome(orphans=len(left), note=note + (", started again" if new else ""))


# --- the supervisor


def upgraded(kind: type[Supervisor]) -> Outcome:
    """the supervisor is restarted, as for an upgrade"""
    return _without_supervisor(kind, lambda supervisor: supervisor.upgrade())


def supervisor_killed(kind: type[Supervisor]) -> Outcome:
    """`kill -9` of the supervisor, then it is started again"""
    return _without_supervisor(kind, lambda supervisor: _killed(supervisor, everything=False))


def everything_killed(kind: type[Supervisor]) -> Outcome:
    """`kill -9` of the supervisor and of all processes of its own, then it is started again"""
    return _without_supervisor(kind, lambda supervisor: _killed(supervisor, everything=True))


def _killed(supervisor: Supervisor, *, everything: bool) -> None:
    supervisor.kill(everything=everything)
    supervisor.start()


def _without_supervisor(kind: type[Supervisor], act: Callable[[Supervisor], None]) -> Outcome:
    with staged(kind, FLEET) as stage:
        supervisor = stage.supervisor
        streams = Streams({supervisor.url(engine): engine.name for engine in stage.engines})
        try:
            act(supervisor)
            note = ""
            try:
                for engine in stage.engines:
                    wait_for(lambda e=engine: supervisor.look(e).up and stage.serves(e), "again", 20.0)
            except TimeoutError:
                note = f"not all back: {', '.join(supervisor.look(e).state for e in stage.engines)}"
            time.sleep(ORPHANS_AFTER_S)
            kept = [e for e in stage.engines if supervisor.look(e).pid == stage.main(e)]
            orphans = sum(len(stage.left(e)) for e in stage.engines if e not in kept)
            disturbed = sum(observe.identity(stage.main(e)) is None for e in stage.engines)
            if orphans:
                note += f"{'; ' if note else ''}{orphans} processes run on that it does not know"
            return Outcome(
                orphans=orphans,
                disturbed=disturbed,
                streams=f"{streams.lost()} of {streams.number}",
                note=note,
            )
        finally:
            streams.close()


# --- starts


def starts_slowly(kind: type[Supervisor]) -> Outcome:
    """it takes 6 s to load"""
    with staged(kind, wait=False, load_s=LOAD_S) as stage:
        began, counted, served = time.monotonic(), None, None
        while served is None or counted is None:
            past = time.monotonic() - began
            if counted is None and stage.supervisor.look(stage.one).up:
                counted = past
            if served is None and stage.serves(stage.one):
                served = past
            if past > GIVE_UP_S:
                return Outcome(note="never came up")
            time.sleep(observe.POLL_S)
        early = served - counted
        note = f"counted as running {early:.1f} s before it serves" if early > 0.1 else "ready when it serves"
        return Outcome(note=note)


def cannot_start(kind: type[Supervisor]) -> Outcome:
    """it ends at each start: its configuration is wrong"""
    with staged(kind, wait=False, fail_start="configuration") as stage:
        wait_for(lambda: observe.members(stage.one.mark), "the first try")
        began, starts = time.monotonic(), set()
        while time.monotonic() - began < LOOP_S:
            for one in observe.members(stage.one.mark):
                with contextlib.suppress(ProcessLookupError):
                    starts.add(os.getpgid(one.pid))  # each start has a process group of its own
            time.sleep(observe.POLL_S)
        state = stage.supervisor.look(stage.one).state
        ended = state.lower() in ("fatal", "stopped")
        rate = f"{len(starts)} starts in {LOOP_S:.0f} s, then {state}"
        note = f"{rate}: {'given up for good' if ended else 'tries again'}"
        outcome = Outcome(note=note)
        _tell(stage, outcome, r"configuration|max_model_len")
        return outcome


def port_taken(kind: type[Supervisor]) -> Outcome:
    """another program listens on its port for 10 s, and answers 200"""
    stranger = Stranger()
    try:
        with staged(kind, wait=False, before=stranger.take) as stage:
            began, outcome, counted = time.monotonic(), Outcome(watched_s=GIVE_UP_S), False
            while outcome.served_s is None and (past := time.monotonic() - began) < GIVE_UP_S:
                if past > STRANGER_S:
                    stranger.leave()
                if stage.serves(stage.one):
                    outcome.served_s = past
                elif stranger.there and stage.supervisor.look(stage.one).up:
                    counted = True
                time.sleep(observe.POLL_S)
            state = stage.supervisor.look(stage.one).state
            if outcome.served_s is None:
                outcome.note = f"never serves, {state}"
            else:
                outcome.note = (
                    "serves on another port" if stranger.there else "serves when the other has gone"
                )
            if counted:
                outcome.note += "; counted as running while it was not the one that answered"
            if not (stranger.there and outcome.served_s):
                _tell(stage, outcome, r"port|address")
            return outcome
    finally:
        stranger.leave()


class Stranger:
    """A program that has nothing to do with engines, and answers 200 to everything."""

    def __init__(self) -> None:
        self._server: http.server.ThreadingHTTPServer | None = None

    @property
    def there(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    def take(self, engines: list[Engine]) -> None:
        """Listen on the first engine's port."""

        class Healthy(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", engines[0].port), Healthy)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def leave(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


REPEATED = 3
"""How often what is timed is done; the table has the medians."""
TIMED = (api_server_killed, engine_core_killed, worker_killed, exits_with_zero, children_left)


def measured(fault: Callable[[type[Supervisor]], Outcome], kind: type[Supervisor]) -> Outcome:
    """The outcome of a fault. Of several the worst in everything but times, which are medians."""
    outcomes = [fault(kind) for _ in range(REPEATED if fault in TIMED else 1)]
    worst = max(outcomes, key=lambda one: (one.orphans or 0, not one.known))
    detected = [GIVE_UP_S if one.detected_s is None else one.detected_s for one in outcomes]
    served = [GIVE_UP_S if one.served_s is None else one.served_s for one in outcomes]
    if len(outcomes) > 1:
        worst.detected_s, worst.served_s = median(detected), median(served)
    return worst


FAULTS: tuple[Callable[[type[Supervisor]], Outcome], ...] = (
    api_server_killed,
    engine_core_killed,
    worker_killed,
    exits_with_zero,
    children_left,
    hangs,
    ignores_sigterm,
    stopped_with_setsid,
    stopped_with_double_fork,
    upgraded,
    supervisor_killed,
    everything_killed,
    starts_slowly,
    cannot_start,
    port_taken,
)
