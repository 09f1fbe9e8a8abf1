"""The parts of the systemd back end, without a systemd."""

import asyncio
import os
import pwd
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from supervisord_cp.adapters import systemd, systemd_directory, systemd_share, systemd_unit
from supervisord_cp.adapters.direct import DirectBackend
from supervisord_cp.adapters.keeper_directory import IncarnationDirectory
from supervisord_cp.adapters.proctree import running_boot_id
from supervisord_cp.adapters.systemd import SystemdBackend, UnitEngine
from supervisord_cp.adapters.systemd_directory import SharedDirectory
from supervisord_cp.adapters.systemd_template import engine_account
from supervisord_cp.adapters.systemd_unit import EngineUnit, is_populated, members, show, slice_path
from supervisord_cp.agent.backend import engine_side, environment_of
from supervisord_cp.config.schema import AgentConfig
from supervisord_cp.errors import UsageError
from supervisord_cp.model.base import Incarnation, InstanceId
from supervisord_cp.ports.process import ExitStatus, ProcessRecord, SpawnFailed, SpawnRequest
from tests.systemd.stub import Systemctl
from tests.waiting import PATIENCE_S, until

SLICE = "Slice=supervisord-cp-engines.slice\n"
INACTIVE = {"out": f"ActiveState=inactive\n{SLICE}"}
ACTIVE = {"out": f"ActiveState=active\n{SLICE}"}
NAME = "supervisord-cp-engine@chat-0.service"
CONTROL_GROUP = f"supervisord.slice/supervisord-cp.slice/supervisord-cp-engines.slice/{NAME}"

REQUEST = SpawnRequest(
    instance=InstanceId("chat-0"),
    incarnation=Incarnation("chat-0.1"),
    nonce="n",
    argv=("true",),
    env={"SECRET": "s"},
    cwd="/",
    log_path="/log",
)


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemctl:
    return Systemctl(tmp_path / "bin", monkeypatch)


@pytest.fixture
def unit(tmp_path: Path) -> EngineUnit:
    links = tmp_path / "links"
    links.mkdir()
    return EngineUnit("chat-0", links, control_groups=tmp_path / "cgroup")


def populate(control_groups: Path, *pids: int, path: str = CONTROL_GROUP) -> None:
    """Let the kernel's files of a control group say that these processes are in it."""
    folder = control_groups / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.events").write_text(f"populated {int(bool(pids))}\nfrozen 0\n")
    (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))


@pytest.fixture
def directory(tmp_path: Path) -> SharedDirectory:
    made = SharedDirectory(tmp_path / "state" / "instances" / "chat-0" / "chat-0.1")
    made.create(REQUEST)
    return made


def record(directory: IncarnationDirectory, **changes: Any) -> ProcessRecord:
    """Written as a keeper would."""
    fields = {
        "instance": "chat-0",
        "incarnation": "chat-0.1",
        "nonce": "n",
        "boot_id": "b",
        "pid": 7,
        "start_ticks": 1,
        "keeper_pid": 6,
        "keeper_start_ticks": 1,
    }
    (directory.path / "record.json").write_bytes(msgspec.json.encode(fields | changes))
    found = directory.record()
    assert found is not None
    return found


class TestUnit:
    def test_a_start_that_succeeds_says_nothing(self, unit: EngineUnit, systemctl: Systemctl) -> None:
        assert unit.start() == ""
        assert systemctl.asked == [["start", NAME]]

    def test_a_refused_start_is_told_in_systemds_words(self, unit: EngineUnit, systemctl: Systemctl) -> None:
        systemctl.answers(start={"err": "Access denied\nSee man\n", "code": 4})
        assert unit.start() == "Access denied"
        systemctl.answers(start={"code": 4})
        assert unit.start() == "systemctl start ended with 4"

    def test_a_start_without_systemctl_is_told(
        self, unit: EngineUnit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        assert "No such file or directory: 'systemctl'" in unit.start()

    def test_a_systemctl_that_hangs_is_given_up(
        self, unit: EngineUnit, systemctl: Systemctl, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        systemctl.answers(start={"takes_s": 60})
        monkeypatch.setattr(systemd_unit, "START_S", 0.2)
        assert unit.start() == "systemctl start took more than 0.2 s"

    @pytest.mark.parametrize("end", [EngineUnit.stop, EngineUnit.kill])
    def test_what_cannot_be_ended_is_an_error(
        self, unit: EngineUnit, systemctl: Systemctl, end: Callable[[EngineUnit], None]
    ) -> None:
        systemctl.answers(stop={"err": "no", "code": 1}, kill={"err": "no", "code": 1})
        with pytest.raises(OSError, match=r"systemctl (stop|kill): no"):
            end(unit)

    @pytest.mark.parametrize(
        ("state", "over"), [("inactive", True), ("failed", True), ("deactivating", False)]
    )
    def test_it_is_over_when_systemd_says_so(
        self, unit: EngineUnit, systemctl: Systemctl, state: str, over: bool
    ) -> None:
        systemctl.answers(show={"out": f"ActiveState={state}\n{SLICE}"})
        assert unit.is_over() is over

    @pytest.mark.parametrize("state", ["inactive", "failed"])
    def test_it_is_not_over_while_the_kernel_counts_a_process(
        self, unit: EngineUnit, systemctl: Systemctl, tmp_path: Path, state: str
    ) -> None:
        """What outlives SIGKILL, in state D, is given up by systemd."""
        systemctl.answers(show={"out": f"ActiveState={state}\n{SLICE}"})
        populate(tmp_path / "cgroup", 12)
        assert not unit.is_over()
        assert unit.members() == [12]
        populate(tmp_path / "cgroup")
        assert unit.is_over()
        assert unit.members() == []

    def test_the_slice_may_be_another(self, unit: EngineUnit, systemctl: Systemctl, tmp_path: Path) -> None:
        systemctl.answers(show={"out": "ActiveState=inactive\nSlice=gpu-jobs.slice\n"})
        populate(tmp_path / "cgroup", 12, path=f"gpu.slice/gpu-jobs.slice/{NAME}")
        assert not unit.is_over()

    @pytest.mark.parametrize("answer", [{"code": 1, "err": "no bus"}, {"out": ""}])
    def test_unknown_is_not_over(
        self, unit: EngineUnit, systemctl: Systemctl, answer: dict[str, Any]
    ) -> None:
        systemctl.answers(show=answer)
        with pytest.raises(OSError, match="systemctl show"):
            unit.is_over()

    def test_it_runs_the_incarnation_that_its_link_leads_to(
        self, unit: EngineUnit, systemctl: Systemctl, tmp_path: Path
    ) -> None:
        systemctl.answers(show=ACTIVE)
        old, new = tmp_path / "old", tmp_path / "new"
        assert not unit.runs(old)
        unit.point_to(old)
        unit.point_to(new)
        assert (unit.runs(old), unit.runs(new)) == (False, True)
        systemctl.answers(show=INACTIVE)
        assert not unit.runs(new)
        unit.forget()
        unit.forget()
        assert list((tmp_path / "links").iterdir()) == []

    @pytest.mark.parametrize("name", ["chat 0", "chat/0", "chat@0", "", "chät-0"])
    def test_names_that_no_unit_can_have_are_refused(self, name: str) -> None:
        with pytest.raises(SpawnFailed, match="cannot be part of the name of a unit"):
            EngineUnit(name)

    def test_properties_are_asked_by_name(self, systemctl: Systemctl) -> None:
        systemctl.answers(show={"out": "User=alice\nLoadState=loaded\n"})
        assert show(NAME, "User", "LoadState") == {"User": "alice", "LoadState": "loaded"}
        assert systemctl.asked == [["show", "--property=User", "--property=LoadState", NAME]]

    def test_systemctl_does_not_speak_for_the_agent(
        self, unit: EngineUnit, systemctl: Systemctl, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
        unit.start()
        assert "NOTIFY_SOCKET" not in systemctl.environment


class TestControlGroup:
    def test_a_group_that_is_gone_has_nobody(self, tmp_path: Path) -> None:
        assert members(tmp_path / "gone") == []
        assert not is_populated(tmp_path / "gone")

    def test_members_that_can_be_seen_are_read(self, tmp_path: Path) -> None:
        """Those of another pid namespace have the number 0."""
        populate(tmp_path, 12, 0, 34, path=".")
        assert members(tmp_path) == [12, 34]
        assert is_populated(tmp_path)

    def test_each_dash_of_a_slice_is_a_step_down(self) -> None:
        assert slice_path("a-b-c.slice") == Path("a.slice/a-b.slice/a-b-c.slice")
        assert slice_path("system.slice") == Path("system.slice")


class TestSharedDirectory:
    def test_the_keeper_is_let_in(self, directory: SharedDirectory) -> None:
        directory.share()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.path.iterdir()}
        assert modes == {"launch.json": 0o640, "keeper.lock": 0o660}
        assert stat.S_IMODE(directory.path.stat().st_mode) == 0o770
        assert not directory.is_held()

    def test_a_start_that_was_cut_short_did_not_start(self, directory: SharedDirectory) -> None:
        assert directory.record() is not None
        assert directory.started() is None
        known = record(directory)
        assert directory.started() == known

    def test_a_failure_is_told_in_the_keepers_words(self, directory: SharedDirectory) -> None:
        assert directory.failure() is None
        (directory.path / "failed.json").write_text('{"message": "no such program"}')
        assert directory.failure() == "no such program"

    def test_how_it_ended_is_recorded_as_it_was_seen(self, directory: SharedDirectory) -> None:
        directory.settle(ExitStatus(signal=9, requested=True, age_s=100.0))
        ended = directory.exit()
        assert ended is not None
        assert (ended.signal, ended.requested, ended.keeper_lost, ended.gone) == (9, True, False, True)
        assert ended.status().age_s >= 100.0
        assert directory.is_over()

    def test_what_the_keeper_recorded_of_the_end_stays(self, directory: SharedDirectory) -> None:
        (directory.path / "exit.json").write_text('{"code": 3, "boot_id": "b", "time_s": 5.0}')
        directory.settle(ExitStatus(keeper_lost=True))
        ended = directory.exit()
        assert ended is not None
        assert (ended.code, ended.time_s, ended.keeper_lost, ended.gone) == (3, 5.0, False, True)

    def test_what_the_keeper_kept_to_itself_is_recorded_as_it_was_seen(
        self, directory: SharedDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (directory.path / "exit.json").write_text('{"code": 3, "boot_id": "b", "gone": true}')

        def refuse(*_: Any) -> None:
            raise PermissionError(13, "Permission denied")

        with monkeypatch.context() as patched:
            patched.setattr(IncarnationDirectory, "_read", refuse)
            assert directory.hides_its_end()
            directory.settle(ExitStatus(code=4))
        assert not directory.hides_its_end()
        ended = directory.exit()
        assert ended is not None
        assert (ended.code, ended.gone) == (4, True)

    def test_links_that_an_engine_left_are_not_followed(
        self, directory: SharedDirectory, tmp_path: Path
    ) -> None:
        treasure = tmp_path / "treasure"
        treasure.write_text("{}")
        for name in ("exit.json", "exit.json.tmp"):
            (directory.path / name).symlink_to(treasure)
        directory.settle(ExitStatus(keeper_lost=True))
        assert treasure.read_text() == "{}"

    def test_what_is_not_shared_yet_is_waited_for(
        self, directory: SharedDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = record(directory)
        refusals = iter([PermissionError(13, "Permission denied")] * 2)
        read = IncarnationDirectory._read

        def reluctant(self: IncarnationDirectory, name: str, kind: Any) -> Any:
            for refusal in refusals:
                raise refusal
            return read(self, name, kind)

        monkeypatch.setattr(IncarnationDirectory, "_read", reluctant)
        assert directory.record() == known

    def test_what_is_never_shared_is_missing(
        self, directory: SharedDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def refuse(*_: Any) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(IncarnationDirectory, "_read", refuse)
        monkeypatch.setattr(systemd_directory, "SHARED_WAIT_S", 0.0)
        assert directory.exit() is None
        assert "exit.json cannot be read: Permission denied" in caplog.text


class TestSharing:
    def make(self, folder: Path) -> None:
        for name in ("record.json", "exit.json"):
            (folder / name).write_text("{}")
            (folder / name).chmod(0o600)
        with suppress(FileNotFoundError):
            (folder / "keeper.sock").unlink()
        with socket.socket(socket.AF_UNIX) as listener:
            umask = os.umask(0o177)
            try:
                listener.bind(str(folder / "keeper.sock"))
            finally:
                os.umask(umask)

    def test_the_group_may_read_files_and_use_the_socket(self, tmp_path: Path) -> None:
        self.make(tmp_path)
        outside = tmp_path.parent / f"{tmp_path.name}-outside"
        outside.write_text("")
        outside.chmod(0o600)
        (tmp_path / "link").symlink_to(outside)
        systemd_share.share(tmp_path)
        modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in tmp_path.iterdir()}
        assert modes == {"record.json": 0o640, "exit.json": 0o640, "keeper.sock": 0o660, "link": 0o777}
        assert stat.S_IMODE(outside.stat().st_mode) == 0o600

    def test_what_became_of_the_start_is_shared_last(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.make(tmp_path)
        order: list[str] = []
        monkeypatch.setattr(Path, "chmod", lambda path, mode: order.append(path.name))
        systemd_share.share(tmp_path)
        assert order[-1] == "record.json"

    def test_it_waits_for_what_becomes_of_the_start(self, tmp_path: Path) -> None:
        program = [sys.executable, "-I", "-S", systemd_share.__file__, str(tmp_path)]
        with subprocess.Popen(program, env={"MAINPID": str(os.getpid())}) as sharing:
            with pytest.raises(subprocess.TimeoutExpired):
                sharing.wait(0.3)
            (tmp_path / "failed.json").write_text("{}")
            assert sharing.wait(PATIENCE_S) == 0
        assert stat.S_IMODE((tmp_path / "failed.json").stat().st_mode) == 0o640

    def test_after_the_end_of_the_keeper_it_does_not_wait(self, tmp_path: Path) -> None:
        program = [sys.executable, "-I", "-S", systemd_share.__file__, str(tmp_path)]
        assert subprocess.run(program, env={}, timeout=PATIENCE_S).returncode == 0


@pytest.mark.asyncio
class TestBackend:
    def backend(self, tmp_path: Path) -> SystemdBackend:
        (tmp_path / "links").mkdir(exist_ok=True)
        return SystemdBackend(
            tmp_path / "state",
            links=tmp_path / "links",
            control_groups=tmp_path / "cgroup",
            report_wait_s=0,
            overdue_s=0.05,
        )

    async def test_a_start_that_systemd_refuses_is_told(self, tmp_path: Path, systemctl: Systemctl) -> None:
        systemctl.answers(start={"err": "Access denied\n", "code": 4}, show=INACTIVE)
        with pytest.raises(
            SpawnFailed, match=r"Access denied See `journalctl -u supervisord-cp-engine@chat-0"
        ):
            await self.backend(tmp_path).spawn(REQUEST)
        assert list((tmp_path / "state/instances/chat-0").iterdir()) == []  # nor the secrets in it

    async def test_without_an_answer_from_systemd_nothing_is_started(
        self, tmp_path: Path, systemctl: Systemctl
    ) -> None:
        systemctl.answers(show={"code": 1, "err": "no bus"})
        with pytest.raises(SpawnFailed, match="no bus"):
            await self.backend(tmp_path).spawn(REQUEST)
        assert [words[0] for words in systemctl.asked] == ["show"]

    async def test_a_keeper_that_ends_without_a_word_is_a_failed_start(
        self, tmp_path: Path, systemctl: Systemctl
    ) -> None:
        systemctl.answers(show=INACTIVE)
        with pytest.raises(SpawnFailed, match="has ended See `journalctl"):
            await self.backend(tmp_path).spawn(REQUEST)

    async def test_what_runs_by_that_name_is_stopped_first(
        self, tmp_path: Path, systemctl: Systemctl
    ) -> None:
        systemctl.answers(show=ACTIVE, stop={"code": 1, "err": "it stays"})
        with pytest.raises(SpawnFailed, match="it stays"):
            await self.backend(tmp_path).spawn(REQUEST)
        assert [words[0] for words in systemctl.asked] == ["show", "stop"]

    async def test_nothing_is_started_beside_what_cannot_be_killed(
        self, tmp_path: Path, systemctl: Systemctl
    ) -> None:
        systemctl.answers(show=INACTIVE)
        populate(tmp_path / "cgroup", 12, 34)
        with pytest.raises(SpawnFailed, match="processes are left that cannot be killed: 12, 34"):
            await self.backend(tmp_path).spawn(REQUEST)
        assert [words[0] for words in systemctl.asked] == ["show", "stop", "show"]

    async def test_who_outlives_its_unit_is_a_survivor_and_nothing_is_over(
        self,
        tmp_path: Path,
        systemctl: Systemctl,
        directory: SharedDirectory,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(systemd, "END_WAIT_S", 0.01)
        systemctl.answers(show=INACTIVE, kill={"code": 1, "err": "not loaded"})
        record(directory, boot_id=running_boot_id(), pid=0)
        populate(tmp_path / "cgroup", 12)
        backend = self.backend(tmp_path)
        EngineUnit("chat-0", tmp_path / "links").point_to(directory.path)
        [engine] = await backend.find()
        assert (await engine.exited).keeper_lost
        gone = asyncio.create_task(engine.gone())
        await until(lambda: sum("kill" in words for words in systemctl.asked) >= 2)
        assert not gone.done()
        assert engine.survivors() == [12]
        with pytest.raises(ValueError, match="not gone yet"):
            backend.forget(REQUEST.instance)
        populate(tmp_path / "cgroup")
        await gone
        assert list(engine.survivors()) == []
        backend.forget(REQUEST.instance)
        engine.close()
        backend.close()

    async def test_a_unit_that_stays_is_killed_again_and_again(
        self,
        tmp_path: Path,
        systemctl: Systemctl,
        directory: SharedDirectory,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(systemd, "END_WAIT_S", 0.01)
        systemctl.answers(show=ACTIVE)
        known = record(directory, boot_id=running_boot_id(), pid=0)
        backend = self.backend(tmp_path)
        EngineUnit("chat-0", tmp_path / "links").point_to(directory.path)
        [engine] = await backend.find()
        assert isinstance(engine, UnitEngine)
        assert engine.record == known
        await until(lambda: sum("kill" in words for words in systemctl.asked) >= 2)
        systemctl.answers(show=INACTIVE)
        await engine.gone()
        ended = directory.exit()
        assert ended is not None
        assert ended.gone
        engine.close()
        backend.close()


class TestTemplate:
    def account(self, engine_user: str = "", **found: str) -> pwd.struct_passwd:
        return engine_account(engine_user, lambda *_: {"LoadState": "loaded", "User": "root", **found})

    def test_whom_the_template_names_is_whom_engines_run_as(self) -> None:
        assert self.account().pw_name == "root"
        assert self.account("root").pw_dir == "/root"

    @pytest.mark.parametrize(
        ("engine_user", "found", "words"),
        [
            ("", {"LoadState": "not-found"}, "is not-found; run `supervisord-cp install systemd`"),
            ("alice", {}, 'engine_user = "alice", but supervisord-cp-engine@.service has User=root'),
            ("", {"User": ""}, "runs engines as root"),
            ("", {"User": "no-such-user"}, "there is no such user"),
        ],
    )
    def test_a_template_that_does_not_fit_is_refused(
        self, engine_user: str, found: dict[str, str], words: str
    ) -> None:
        with pytest.raises(UsageError, match=words):
            self.account(engine_user, **found)

    def test_no_systemd_is_refused(self, systemctl: Systemctl) -> None:
        systemctl.answers(show={"code": 1, "err": "System has not been booted with systemd"})
        with pytest.raises(UsageError, match=r'backend = "systemd": .*not been booted'):
            engine_account("")


class TestEngineSide:
    def test_the_direct_back_end_hands_on_what_the_agent_has(self, tmp_path: Path) -> None:
        environ = {"HOME": "/home/agent", "HF_TOKEN": "t"}
        side = engine_side(AgentConfig(state_dir=tmp_path), environ, stop_engines=False)
        assert isinstance(side.make_backend(), DirectBackend)
        assert (side.environ, side.cwd) == (environ, tmp_path)

    def test_in_units_engines_are_at_home_with_their_own_user(self) -> None:
        def account(engine_user: str) -> pwd.struct_passwd:
            assert engine_user == "alice"
            return user

        user = pwd.struct_passwd(("alice", "x", 1, 1, "", "/home/alice", "/bin/bash"))
        agent = AgentConfig(backend="systemd", engine_user="alice")
        side = engine_side(agent, {"PATH": "/bin"}, stop_engines=False, account=account)
        assert isinstance(side.make_backend(), SystemdBackend)
        assert side.cwd == Path("/home/alice")
        assert side.environ["HOME"] == "/home/alice"

    def test_what_names_the_agents_home_is_replaced(self) -> None:
        user = pwd.struct_passwd(("alice", "x", 1, 1, "", "/home/alice", "/bin/bash"))
        own = {
            "HOME": "/h",
            "USER": "u",
            "LOGNAME": "u",
            "SHELL": "s",
            "XDG_CACHE_HOME": "/h/.cache",
            "HF_TOKEN": "t",
        }
        assert environment_of(user, own) == {
            "HOME": "/home/alice",
            "USER": "alice",
            "LOGNAME": "alice",
            "SHELL": "/bin/bash",
            "HF_TOKEN": "t",
        }
