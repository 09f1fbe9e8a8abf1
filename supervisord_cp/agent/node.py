"""The node: takes over what is wanted of its instances, and takes engines over from earlier agents."""

import asyncio
import logging
from typing import Final

from supervisord_cp.agent.instance import Instance, Tools
from supervisord_cp.agent.launch import Refused, RunNotes, notes_of
from supervisord_cp.agent.report import Reporter
from supervisord_cp.agent.roster import Roster
from supervisord_cp.core.instances import events as ev
from supervisord_cp.core.instances.intake import Book, take_over, with_found, without
from supervisord_cp.core.instances.life import Life
from supervisord_cp.model.event import Event, Severity
from supervisord_cp.model.launch import DesiredInstance, DesiredNode
from supervisord_cp.model.reason import render
from supervisord_cp.ports.process import EngineProcess

log = logging.getLogger(__name__)

WRITE_AGAIN_S: Final = 5.0
"""How soon a desired state is written again that the disk did not take."""
STOP_MARGIN_S: Final = 15.0
"""How much longer than the longest grace the end of all engines is waited for."""

_LEVELS: Final = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.ERROR: logging.ERROR,
}


class Node:
    """All instances of this node, and what the agent has been told to do with them."""

    def __init__(self, roster: Roster, tools: Tools, reporter: Reporter) -> None:
        self._roster = roster
        self._tools = tools
        self._reporter = reporter
        self._book = Book()
        """The latest that was believed; `keep` writes it down and then acts on it."""
        self._unwritten = asyncio.Event()
        self._halted = False
        self._endings: set[asyncio.Task[None]] = set()
        self._warned = ("", "")

    # what instances say

    def changed(self, instance: Instance) -> None:
        """What one gives back, another may wait for."""
        self._tools.gate.look()
        self._reporter.changed()

    def told(self, event: Event) -> None:
        """Pass it on, and write it into our own log."""
        log.log(_LEVELS[event.severity], "%s %s: %s", event.kind, event.subject, event.message)
        self._reporter.told(event)

    def gone(self, instance: Instance) -> None:
        """An instance has ceased to exist."""
        self._roster.instances.pop(instance.id, None)
        self._reporter.gone(instance.id)
        if instance.id in self._book.removing:
            self._book = without(self._book, instance.id)
            self._unwritten.set()

    # what central says

    def take(self, desired: DesiredNode) -> None:
        """Believe a desired state, or not; it is acted upon once it is on disk."""
        roster = self._roster
        intake = take_over(self._book, desired, node=roster.identity.name, inventory=self._reporter.inventory)
        if intake.refused:
            self._warn("desired.refused", f"desired state refused: {intake.refused}")
        for kept in intake.kept:
            self._warn(
                "removal.refused", f"{kept} is kept: its removal came from somebody who has not seen it"
            )
        for invalid in intake.invalid:
            self._warn("instance.refused", f"{invalid!r} is no id of an instance")
        for unknown in intake.unknown:
            self._reporter.gone(unknown)
        if intake.book != self._book:
            self._book = intake.book
            self._unwritten.set()

    async def keep(self) -> None:
        """Write down what was believed, then act on it; until cancelled. A disk that does not take it keeps
        nobody from acting: it is written when the disk does."""
        while True:
            await self._unwritten.wait()
            self._unwritten.clear()
            book = self._book
            try:
                await asyncio.to_thread(self._tools.state.save_book, book)
            except OSError as error:
                self._warn("state.unwritable", f"the desired state cannot be written down: {error}")
                asyncio.get_running_loop().call_later(WRITE_AGAIN_S, self._unwritten.set)
            self._act_on(book)

    def _act_on(self, book: Book) -> None:
        self._roster.generation = book.generation
        self._reporter.changed()
        for desired in book.instances:
            instance = self._roster.instances.get(desired.id)
            if instance is None:
                instance = self._create(desired, listed=desired.id not in book.unlisted)
                instance.deliver(ev.Tick())
            if desired.id in book.removing:
                instance.deliver(ev.Removed())
            elif desired.id in book.unlisted:
                instance.deliver(ev.Unlisted())
            else:
                instance.deliver(ev.Wanted(desired=desired))

    def _create(self, desired: DesiredInstance, *, listed: bool) -> Instance:
        history = self._tools.state.load_history(desired.id, self._tools.clock.now())
        life = Life(desired=desired, listed=listed, halted=self._halted, history=history)
        instance = self._roster.instances[desired.id] = Instance(life, self._tools, self)
        return instance

    # beginning and end

    async def adopt(self) -> None:
        """Take over what earlier agents left, and start what is wanted and does not run."""
        book = await asyncio.to_thread(self._tools.state.load_book)
        found: list[tuple[EngineProcess, RunNotes]] = []
        unreadable: list[EngineProcess] = []
        for process in await self._tools.backend.find():
            notes = notes_of(process.record)
            if notes is None:
                unreadable.append(process)
                continue
            book = with_found(book, notes.desired)
            found.append((process, notes))
        self._book = book
        self._roster.generation = book.generation
        for desired in book.instances:
            self._create(desired, listed=desired.id not in book.unlisted)
        for process in unreadable:
            instance = self._roster.instances.get(process.record.instance)
            if instance is None and process.record.pid == 0:
                self._end(process, 0.0, "nothing is known of it but that it is ours")
            elif instance is None:
                self._leave_alone(process, "its notes cannot be read, and nothing is wanted in its place")
            else:
                instance.clear_first(process)
        for process, notes in sorted(found, key=lambda one: one[0].exited.done()):  # what runs goes first
            self._adopt_one(process, notes)
        for desired in book.instances:
            instance = self._roster.instances[desired.id]
            instance.deliver(ev.Removed() if desired.id in book.removing else ev.Tick())

    def _adopt_one(self, process: EngineProcess, notes: RunNotes) -> None:
        record = process.record
        instance = self._roster.instances[record.instance]
        if instance.running is not None:
            grace_s = notes.desired.spec.stop_grace_s
            self._end(process, grace_s, f"{record.instance} has another one")
        elif process.exited.done() and instance.life.history.ended == record.incarnation:
            instance.last_port = notes.port
            process.close()  # its end is history already
        else:
            try:
                instance.adopt(process, notes)
            except Refused as refusal:
                self._leave_alone(process, render(refusal.reason))

    def _leave_alone(self, process: EngineProcess, why: str) -> None:
        log.error("%s is left alone: %s", process.record.incarnation, why)
        process.close()

    def _end(self, process: EngineProcess, grace_s: float, why: str) -> None:
        """It has no right to be."""

        async def end() -> None:
            await process.stop(grace_s=grace_s)
            await process.gone()
            process.close()

        log.warning("%s is ended: %s", process.record.incarnation, why)
        task = asyncio.create_task(end(), name=f"end {process.record.incarnation}")
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def settled(self, timeout_s: float) -> None:
        """Wait until every adopted engine has been asked how it is, for `timeout_s` at most."""
        try:
            async with asyncio.timeout(timeout_s):
                for instance in list(self._roster.instances.values()):
                    if instance.running is not None:
                        await instance.running.asked.wait()
        except TimeoutError:
            log.warning("not every engine has answered within %.0f s", timeout_s)

    async def halt(self) -> None:
        """Stop all engines and wait until no process is left, as long as their graces allow."""
        self._halted = True
        instances = list(self._roster.instances.values())
        graces = [one.life.run.stop_grace_s for one in instances if one.life.run is not None]
        for instance in instances:
            instance.deliver(ev.Halted())
        try:
            async with asyncio.timeout(max(graces, default=0.0) + STOP_MARGIN_S):
                while any(one.busy for one in self._roster.instances.values()):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            left = ", ".join(one.id for one in self._roster.instances.values() if one.busy)
            log.error("processes are left of: %s", left)

    async def hurry(self) -> None:
        """End without grace what is being stopped."""
        for instance in self._roster.instances.values():
            if instance.running is not None:
                await instance.running.process.stop(grace_s=0.0)

    def close(self) -> None:
        """Let go of everything. Engines run on."""
        for ending in self._endings:
            ending.cancel()
        for instance in self._roster.instances.values():
            instance.close()
        self._tools.gate.close()
        self._tools.backend.close()

    def _warn(self, kind: str, message: str) -> None:
        """Once: central repeats itself."""
        if self._warned == (kind, message):
            return
        self._warned = (kind, message)
        self.told(
            Event(kind=kind, subject=self._roster.identity.name, message=message, severity=Severity.WARNING)
        )
