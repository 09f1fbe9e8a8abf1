"""Which processes are proven to be an engine's (a table in, a set out), and who a signal reaches."""

import signal
import subprocess
from collections.abc import Iterable

import pytest

from supervisord_cp.keeper.proctree import (
    Identity,
    Process,
    Tree,
    members,
    parse_stat,
    read_process,
    signal_exactly,
)

KEEPER, MAIN = 100, 200
OURS = Identity(MAIN, 5000)


def process(pid: int, parent: int, *, session: int = 0, start_ticks: int = 5000) -> Process:
    return Process(
        pid=pid, parent=parent, session=session or pid, state="S", threads=1, start_ticks=start_ticks
    )


def found(
    *processes: Process, carriers: Iterable[int] = (), keeper: int = KEEPER, main: Identity | None = OURS
) -> list[int]:
    table = {process.pid: process for process in processes}
    return sorted(members(table, keeper=keeper, main=main, carries=lambda process: process.pid in carriers))


def test_whoever_descends_from_the_keeper_is_the_engines() -> None:
    assert found(process(MAIN, KEEPER), process(201, MAIN), process(202, 201), process(300, 1)) == [
        MAIN,
        201,
        202,
    ]


def test_orphans_that_came_to_the_keeper_are_the_engines() -> None:
    assert found(process(300, KEEPER), process(301, 300)) == [300, 301]


def test_the_keeper_and_init_are_never() -> None:
    both = (process(1, 0), process(KEEPER, 1))
    assert found(*both, carriers=[1, KEEPER]) == []


def test_without_its_keeper_the_main_process_is_known_by_its_start() -> None:
    assert found(process(MAIN, 1), process(201, MAIN)) == [MAIN, 201]


def test_a_recycled_pid_and_its_session_are_somebody_elses() -> None:
    assert found(process(MAIN, 1, start_ticks=5001), process(201, MAIN), process(202, 1, session=MAIN)) == []


def test_carriers_of_the_nonce_are_found_wherever_they_are() -> None:
    assert found(process(300, 1), process(301, 300), process(302, 1), carriers=[300]) == [300, 301]


def test_the_session_counts_when_the_main_process_is_in_it() -> None:
    assert found(process(MAIN, 1), process(300, 1, session=MAIN)) == [MAIN, 300]


def test_the_session_counts_when_a_proven_process_is_in_it() -> None:
    mates = (process(300, 1, session=MAIN), process(301, 1, session=MAIN), process(302, 301))
    assert found(*mates, carriers=[300]) == [300, 301, 302]


def test_a_session_alone_proves_nothing() -> None:
    assert found(process(300, 1, session=MAIN), process(301, 1, session=MAIN)) == []


def test_nothing_is_proven_by_nothing() -> None:
    assert found(process(MAIN, 1), process(300, 1, session=MAIN), main=None) == []


def test_an_empty_nonce_is_refused() -> None:
    with pytest.raises(ValueError, match="empty nonce"):
        Tree(nonce="", main=None)


STAT = "{pid} ({name}) {state} 7 8 9 0 -1 4 1 0 0 0 1 0 0 0 20 0 {threads} 0 308637 0 0 1844"


@pytest.mark.parametrize("name", ["python", "VLLM::EngineCor", "a) S 1 1 1", "((", "tmux: server", ""])
def test_names_of_processes_may_hold_anything(name: str) -> None:
    parsed = parse_stat(STAT.format(pid=42, name=name, state="D", threads=3))
    assert parsed == Process(pid=42, parent=7, session=9, state="D", threads=3, start_ticks=308637)


@pytest.mark.parametrize(
    ("state", "threads", "alive"), [("S", 1, True), ("Z", 1, False), ("X", 1, False), ("Z", 2, True)]
)
def test_a_zombie_is_alive_while_one_of_its_threads_is(state: str, threads: int, alive: bool) -> None:
    assert parse_stat(STAT.format(pid=42, name="x", state=state, threads=threads)).alive is alive


def test_half_a_line_is_refused() -> None:
    with pytest.raises(ValueError, match="not a stat line"):
        parse_stat("42 (python) S 7")


@pytest.mark.process
def test_a_signal_is_for_one_process_and_no_later_owner_of_its_pid() -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        process = read_process(child.pid)
        assert process is not None
        assert not signal_exactly(process._replace(start_ticks=process.start_ticks - 1), signal.SIGKILL)
        assert child.poll() is None
        assert signal_exactly(process, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        assert not signal_exactly(process, signal.SIGKILL)
