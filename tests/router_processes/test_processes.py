"""Several processes behind one address: they are replaced, killed and ended under open streams."""

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path

import pytest

from supervisord_cp.wire import messages as m
from tests.router.kit import Engine, says, streams
from tests.router_processes.kit import CHAT, Processes, finish, router_of
from tests.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.asyncio, pytest.mark.process]


def held() -> tuple[Engine, asyncio.Event]:
    """An engine whose streams wait for the gate after the first event."""
    gate = asyncio.Event()
    return Engine(streams("a", "b", gate=gate)), gate


async def test_each_process_has_a_name_and_reports_the_one_to_signal(tmp_path: Path) -> None:
    async with router_of(tmp_path, Engine()) as router:
        await router.start()
        assert [name.partition("/")[2] for name in sorted(router.serving())] == ["1", "2"]
        assert {report.pid for report in router.serving().values()} == {router.holder.pid}
        assert await router.ask() == 200
        router.holder.terminate()
        assert router.holder.wait(PATIENCE_S) == 0
        await until(lambda: router.serving() == {}, "both have said farewell")


async def test_restarts_refuse_nobody_and_cut_nothing(tmp_path: Path) -> None:
    engine, gate = held()
    async with router_of(tmp_path, engine) as router:
        await router.start()
        opened = await router.streams(8)
        over = asyncio.Event()

        async def connects() -> int:
            count = 0
            while not over.is_set():
                client = await router.client()
                client.send(b"GET /health HTTP/1.1\r\nhost: t\r\n\r\n")
                assert (await client.answer()).status == 200
                await client.close()
                count += 1
            return count

        connecting = asyncio.create_task(connects())
        for _ in range(2):
            await router.restart()
            opened += await router.streams(4)
        over.set()
        assert await connecting > 0
        assert len(router.children()) >= 5, "each generation finishes what it has"
        gate.set()
        assert all([await finish(stream) for stream in opened])
        await until(lambda: len(router.children()) == 2, "the old ones end")
        await until(lambda: len(router.serving()) == 2, "and say so")
        assert "with status 1" not in router.log.read_text()


async def test_kept_connections_are_told_to_come_again(tmp_path: Path) -> None:
    async with router_of(tmp_path, Engine(says({}))) as router:
        router.configure(processes=1)
        await router.start()
        kept = await router.client()
        kept.post({"model": "chat"})
        assert "connection" not in (await kept.answer()).headers
        await router.restart()
        kept.post({"model": "chat"})
        answer = await kept.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")


async def test_a_process_that_is_killed_costs_its_own_streams_and_is_replaced(tmp_path: Path) -> None:
    engine, gate = held()
    async with router_of(tmp_path, engine) as router:
        await router.start()
        opened = await router.streams(20)
        while not all(inflight for inflight, _ in router.loads()):  # a busy host spreads them less evenly
            assert len(opened) < 400, "one process has them all"
            opened += await router.streams(20)
            await router.has(len(opened))
        before = router.children()
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        await until(lambda: len(router.children() - before) == 1, "another one is started")
        gate.set()
        whole = [await finish(stream) for stream in opened]
        assert any(whole)
        await until(lambda: len(router.serving()) >= 2)
        assert await router.ask() == 200


async def test_a_holder_that_is_killed_costs_no_stream(tmp_path: Path) -> None:
    engine, gate = held()
    async with router_of(tmp_path, engine) as router:
        await router.start()
        port = router.port
        opened = await router.streams(4)
        left = router.children()
        router.holder.kill()
        router.holder.wait()
        router.configure(port=port)
        await router.start()
        assert router.port == port
        opened += await router.streams(4)
        gate.set()
        assert all([await finish(stream) for stream in opened])
        await until(lambda: not any(map(alive, left)), "those of the old one end")


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def test_without_waiting_the_holder_ends_first(tmp_path: Path) -> None:
    engine, gate = held()
    async with router_of(tmp_path, engine) as router:
        await router.start("--no-wait")
        opened = await router.streams(4)
        left = router.children()
        router.holder.terminate()
        assert router.holder.wait(PATIENCE_S) == 0
        gate.set()
        assert all([await finish(stream) for stream in opened])
        await until(lambda: not any(map(alive, left)), "they end when they are done")


@pytest.mark.parametrize(
    ("more", "said"),
    [("bogus = 1", "bogus"), ('tls_cert = "/nonexistent"\ntls_key = "/nonexistent"', "tls_cert")],
)
async def test_a_configuration_that_cannot_be_used_changes_nothing(
    tmp_path: Path, more: str, said: str
) -> None:
    async with router_of(tmp_path, Engine()) as router:
        await router.start()
        before = router.children()
        router.configure(more=more)
        router.holder.send_signal(signal.SIGHUP)
        await until(lambda: "not restarted" in router.log.read_text())
        assert said in router.log.read_text()
        await until(lambda: router.children() == before)
        assert await router.ask() == 200
        os.kill(min(before), signal.SIGKILL)
        await until(lambda: len(router.children() - before) == 1, "another one runs as the others do")
        await until(lambda: router.log.read_text().count("router.app") > len(before))
        router.configure()
        await router.restart()


async def test_another_address_is_taken_up_by_a_restart(tmp_path: Path) -> None:
    engine, gate = held()
    async with router_of(tmp_path, engine) as router:
        await router.start()
        old = router.port
        opened = await router.streams(2)
        with socket.create_server(("127.0.0.1", 0)) as free:
            new = free.getsockname()[1]
        router.configure(port=new)
        await router.restart()
        opened += await router.streams(2)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", old)
        gate.set()
        assert all([await finish(stream) for stream in opened])


async def test_what_cannot_be_ends_the_first_start(tmp_path: Path) -> None:
    async with router_of(tmp_path, Engine()) as router:
        router.configure(more='tls_cert = "/nonexistent"\ntls_key = "/nonexistent"')
        with pytest.raises(AssertionError, match=r"router\.tls_cert"):
            await router.start()
        assert router.holder.wait(PATIENCE_S) == 2


async def test_an_operator_s_restart_is_answered_when_new_processes_serve(tmp_path: Path) -> None:
    async with router_of(tmp_path, Engine()) as router:
        router.configure(processes=1)
        await router.start()
        before = router.children()
        await router.central.send(m.Call(id=7, method="restart"))
        await until(lambda: answered(router, 7))
        assert answered(router, 7) == '""'
        assert router.children() - before
        router.configure(more="bogus = 1")
        await until(lambda: any(report.ended for report in router.central.reports))
        await router.central.send(m.Call(id=8, method="restart"))
        await until(lambda: answered(router, 8))
        assert "bogus" in answered(router, 8)


def answered(router: Processes, call: int) -> str:
    """What a call was answered with; "" before that."""
    chunks = [one for one in router.central.heard if isinstance(one, m.CallChunk) and one.id == call]
    return "".join(chunk.data for chunk in chunks) if any(chunk.done for chunk in chunks) else ""


LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "api"}
os.execv(sys.executable, [sys.executable, "-P", "-m", "supervisord_cp", *sys.argv[2:]])
"""


async def test_systemd_holds_the_listener_over_a_restart(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        async with router_of(tmp_path, Engine()) as router:
            router.configure(processes=1)
            await router.start(environ={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")})
            told, descriptors, _, _ = socket.recv_fds(manager, 1000, 4)
            assert told.startswith(b"FDSTORE=1\n") and told.endswith(b"FDNAME=api")
            port = router.port
            with socket.socket(fileno=descriptors[0]) as kept:
                assert kept.getsockname() == ("127.0.0.1", port)
                router.holder.terminate()
                assert router.holder.wait(PATIENCE_S) == 0
                early = await router.client()  # nobody accepts it yet
                early.post(CHAT)
                router.configure(processes=1, port=port)
                await router.start(launch=(LAUNCH, str(kept.fileno())), pass_fds=(kept.fileno(),))
                assert (await early.answer()).status == 200
