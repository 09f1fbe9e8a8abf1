"""What every process back end promises: a life from spawn to gone."""

import asyncio
import json
import os
import signal
import stat
from pathlib import Path

import psutil
import pytest

from supervisord_cp.ports.process import SpawnFailed
from tests.keeper import programs
from tests.keeper.host import Host, ends, is_alive
from tests.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.process, pytest.mark.asyncio]


async def test_a_spawned_engine_is_recorded_and_runs(host: Host) -> None:
    engine = await host.spawn(programs.SLEEPER)
    record = engine.record
    assert is_alive(record.pid)
    assert not engine.exited.done()
    assert engine.survivors() == [record.pid]
    assert record.meta == {"port": 8000, "devices": ["slot-0"]}
    assert json.loads((host.directory(record) / "record.json").read_text())["pid"] == record.pid


@pytest.mark.parametrize("code", [0, 1, 77])
async def test_an_exit_that_nobody_asked_for_is_told_with_its_code(host: Host, code: int) -> None:
    engine = host.keep(await host.agent().spawn(host.request(programs.exits_with(code))))
    status = await engine.exited
    assert (status.code, status.signal, status.requested, status.keeper_lost) == (code, None, False, False)
    await engine.gone()
    assert list(engine.survivors()) == []


async def test_a_signal_that_ended_it_is_told(host: Host) -> None:
    engine = await host.spawn(programs.SLEEPER)
    os.kill(engine.record.pid, signal.SIGSEGV)
    status = await engine.exited
    assert (status.code, status.signal, status.requested) == (None, signal.SIGSEGV, False)


async def test_a_stop_lets_it_end_by_itself(host: Host) -> None:
    engine = await host.spawn(programs.POLITE)
    await engine.stop(grace_s=PATIENCE_S)
    status = await engine.exited
    assert (status.code, status.signal, status.requested) == (3, None, True)
    await engine.gone()


async def test_a_deaf_engine_is_killed_after_its_grace(host: Host) -> None:
    engine = await host.spawn(programs.DEAF)
    await engine.stop(grace_s=0.05)
    status = await engine.exited
    assert (status.signal, status.requested) == (signal.SIGKILL, True)
    await engine.gone()


async def test_a_later_stop_shortens_the_grace_and_never_lengthens_it(host: Host) -> None:
    engine = await host.spawn(programs.DEAF)
    await engine.stop(grace_s=3600)
    await engine.stop(grace_s=0)
    await engine.stop(grace_s=3600)
    assert (await engine.exited).signal == signal.SIGKILL
    await engine.gone()


async def test_a_frozen_engine_hears_of_a_stop(host: Host) -> None:
    engine = await host.spawn(programs.POLITE)
    os.kill(engine.record.pid, signal.SIGSTOP)
    await engine.stop(grace_s=PATIENCE_S)
    assert (await engine.exited).code == 3


@pytest.mark.parametrize("environment", ["keep", "clean"])
async def test_a_stop_ends_daemons_too(host: Host, environment: str) -> None:
    engine = await host.spawn((*programs.ESCAPEES, environment))
    daemons = host.numbers_said()
    assert sorted(engine.survivors()) == sorted([engine.record.pid, *daemons])
    await engine.stop(grace_s=PATIENCE_S)
    await engine.gone()
    assert [pid for pid in daemons if is_alive(pid)] == []
    assert host.living() == []


async def test_leftovers_of_an_engine_that_died_end_without_being_asked(host: Host) -> None:
    engine = await host.spawn((*programs.ESCAPEES, "keep"))
    os.kill(engine.record.pid, signal.SIGUSR1)
    assert (await engine.exited).code == 5
    for daemon in host.numbers_said():
        await ends(daemon)


async def test_children_with_changed_titles_end_too(host: Host) -> None:
    engine = await host.spawn(programs.TITLED)
    [child] = host.numbers_said()
    assert child in host.living()  # its environment is still readable
    await engine.stop(grace_s=PATIENCE_S)
    await engine.gone()
    assert not is_alive(child)


@pytest.mark.parametrize("program", [programs.FORK_CHAIN, programs.FORK_BOMB], ids=["chain", "bomb"])
async def test_whoever_forks_while_it_is_killed_is_caught(host: Host, program: programs.Argv) -> None:
    engine = await host.spawn(program)
    await until(lambda: len(engine.survivors()) > 3)
    await engine.stop(grace_s=0)
    await engine.gone()
    assert host.living() == []


async def test_a_process_whose_first_thread_has_ended_is_alive(host: Host) -> None:
    engine = await host.spawn(programs.THREAD_OUTLIVES_MAIN)
    assert engine.survivors() == [engine.record.pid]
    assert not engine.exited.done()
    await engine.stop(grace_s=0)
    await engine.gone()


async def test_the_engine_gets_what_was_asked_for_and_nothing_else(host: Host, tmp_path: Path) -> None:
    request = host.request(
        programs.SHOWS_ITSELF, env={"HF_HOME": "/models", "SECRET": "s3"}, cwd=str(tmp_path)
    )
    old = signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # must not be inherited from the agent
    try:
        engine = host.keep(await host.agent().spawn(request))
    finally:
        signal.signal(signal.SIGUSR2, old)
    await engine.gone()
    seen = json.loads(host.text())
    environment = {name: seen["env"][name] for name in seen["env"] if name != "LC_CTYPE"}  # Python's own
    assert environment == {**request.env, "SUPERVISORD_CP_NONCE": request.nonce, "SPT_NOENV": "1"}
    assert seen["cwd"] == str(tmp_path)
    assert seen["session"] is True
    assert seen["umask"] == 0o022
    assert seen["fds"] == ["/dev/null", "pipe", "pipe", "pipe"], "and both ends of its output"
    assert int(seen["blocked"], 16) == 0
    ignored_by_python = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    assert int(seen["ignored"], 16) & ~ignored_by_python == 0
    assert seen["oom_score_adj"] >= 0


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("/nowhere/vllm",), "cannot run /nowhere/vllm: No such file or directory"),
        (("no-such-program",), "cannot run no-such-program: No such file or directory"),
        (("/etc",), "cannot run /etc: Permission denied"),
    ],
)
async def test_a_program_that_cannot_be_run_is_told_in_the_systems_words(
    host: Host, argv: tuple[str, ...], words: str
) -> None:
    agent = host.agent()
    with pytest.raises(SpawnFailed, match=words):
        await agent.spawn(host.request(argv))
    assert await agent.find() == []


async def test_a_missing_interpreter_is_told(host: Host, tmp_path: Path) -> None:
    script = tmp_path / "vllm"
    script.write_text("#!/nowhere/python\n")
    script.chmod(0o755)
    with pytest.raises(SpawnFailed, match="interpreter that it names is missing"):
        await host.agent().spawn(host.request((str(script),)))


async def test_a_missing_directory_is_told(host: Host) -> None:
    with pytest.raises(SpawnFailed, match="cannot enter the directory /nowhere: No such file"):
        await host.agent().spawn(host.request(programs.SLEEPER, cwd="/nowhere"))


async def test_a_log_that_cannot_be_opened_is_told(host: Host) -> None:
    with pytest.raises(SpawnFailed, match=r"cannot open the log /proc/x/chat\.log"):
        await host.agent().spawn(host.request(programs.SLEEPER, log_path=Path("/proc/x/chat.log")))


@pytest.mark.parametrize("instance", ["../chat", "..", "a/b", ""])
async def test_a_name_that_leaves_the_state_directory_is_refused(host: Host, instance: str) -> None:
    with pytest.raises(SpawnFailed, match="cannot be the name of a directory"):
        await host.agent().spawn(host.request(programs.SLEEPER, instance=instance))


async def test_an_instance_is_one_place_for_one_engine(host: Host) -> None:
    agent = host.agent()
    first = await host.spawn(programs.POLITE, by=agent)
    with pytest.raises(SpawnFailed, match="not gone yet"):
        await agent.spawn(host.request(programs.SLEEPER))
    assert is_alive(first.record.pid)
    await first.stop(grace_s=PATIENCE_S)
    await first.gone()
    second = host.keep(await agent.spawn(host.request(programs.SLEEPER)))
    assert not host.directory(first.record).exists()
    assert is_alive(second.record.pid)


async def test_secrets_are_for_the_owner_only(host: Host) -> None:
    engine = await host.spawn(programs.SLEEPER)
    directory = host.directory(engine.record)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert {name: mode for name, mode in modes.items() if mode != 0o600} == {}
    assert "launch.json" not in modes  # the environment is not kept longer than needed
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


async def test_a_long_state_directory_is_no_obstacle(host: Host, tmp_path: Path) -> None:
    host.state_dir = tmp_path / ("d" * 120) / "state"
    engine = await host.spawn(programs.POLITE)
    await engine.stop(grace_s=PATIENCE_S)
    assert (await engine.exited).code == 3
    await engine.gone()


async def test_forgetting_needs_an_end(host: Host) -> None:
    agent = host.agent()
    engine = await host.spawn(programs.POLITE, by=agent)
    with pytest.raises(ValueError, match="not gone yet"):
        agent.forget(engine.record.instance)
    await engine.stop(grace_s=PATIENCE_S)
    await engine.gone()
    agent.forget(engine.record.instance)
    agent.forget(engine.record.instance)
    assert await agent.find() == []


async def test_keepers_that_ended_are_reaped(host: Host) -> None:
    engine = await host.spawn(programs.POLITE)
    keeper = engine.record.keeper_pid
    await engine.stop(grace_s=PATIENCE_S)
    await engine.gone()
    await until(lambda: not psutil.pid_exists(keeper))


async def test_waiting_for_the_end_can_be_given_up(host: Host) -> None:
    engine = await host.spawn(programs.SLEEPER)
    waiting = asyncio.create_task(engine.gone())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not engine.exited.cancelled()
    await engine.stop(grace_s=0)
    await engine.gone()


async def test_letting_go_touches_nothing(host: Host) -> None:
    engine = await host.spawn(programs.SLEEPER)
    pid = engine.record.pid
    host.close()
    found = await host.find()
    assert (found.record.pid, is_alive(pid), found.exited.done()) == (pid, True, False)
