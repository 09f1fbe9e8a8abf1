"""What systemd is told."""

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisord_cp.adapters.sd_notify import Notifier
from tests.waiting import PATIENCE_S


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket like systemd's, and its name as systemd puts it into the environment."""
    path = str(tmp_path / "notify") if request.param == "path" else f"@scp-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path.replace("@", "\0", 1))
        receiver.settimeout(PATIENCE_S)
        yield receiver, path


def test_messages(manager: tuple[socket.socket, str]) -> None:
    receiver, path = manager
    notifier = Notifier({"NOTIFY_SOCKET": path})

    def received() -> str:
        return receiver.recv(4096).decode()

    notifier.ready()
    assert received() == "READY=1"
    notifier.ready("two engines")
    assert received() == "READY=1\nSTATUS=two engines"
    notifier.status("three engines")
    assert received() == "STATUS=three engines"
    notifier.reloading()
    assert received().startswith("RELOADING=1\nMONOTONIC_USEC=")
    notifier.watchdog()
    assert received() == "WATCHDOG=1"
    notifier.stopping()
    assert received() == "STOPPING=1"


def test_sockets_are_handed_over(manager: tuple[socket.socket, str]) -> None:
    receiver, path = manager
    notifier = Notifier({"NOTIFY_SOCKET": path})
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        notifier.keep([listening], "api")
        text, descriptors, _, _ = socket.recv_fds(receiver, 4096, 4)
        with socket.socket(fileno=descriptors[0]) as received:
            assert received.getsockname() == listening.getsockname()
    assert text.decode() == "FDSTORE=1\nFDPOLL=0\nFDNAME=api"  # one that is bound alone looks hung up
    notifier.keep([], "api", instead=True)
    assert receiver.recv(4096).decode() == "FDSTOREREMOVE=1\nFDNAME=api"


def test_a_manager_that_does_not_read_never_blocks_us(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        notifier = Notifier({"NOTIFY_SOCKET": path})
        for _ in range(10_000):
            notifier.watchdog()
    notifier.watchdog()  # nobody there any more


def test_without_systemd_nothing_is_sent() -> None:
    notifier = Notifier({})
    notifier.ready("x")
    assert notifier.watchdog_s is None


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_interval(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier(environ, pid=7).watchdog_s == seconds
