"""Ports of this host."""

import os
import socket
from collections.abc import Iterator

import pytest

from supervisord_cp.adapters.listeners import bind_error, in_use, listener_of
from supervisord_cp.cli.up_host import engine_ports, metrics_listen, require_free, settled
from supervisord_cp.config.schema import Listen
from supervisord_cp.errors import SupervisordError, UsageError

HOST = "127.0.0.1"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which this process listens."""
    with socket.create_server((HOST, 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_names_its_holder(taken: int) -> None:
    error = bind_error(HOST, taken)
    assert error is not None
    assert in_use(error)
    assert listener_of(taken).startswith(f"PID {os.getpid()} (")
    with pytest.raises(
        SupervisordError, match=rf"{HOST}:{taken} is taken by PID {os.getpid()} .*--api HOST:PORT"
    ):
        require_free(Listen(host=HOST, port=taken), "--api")


def test_an_address_of_another_host() -> None:
    with pytest.raises(UsageError, match=r"--api 192\.0\.2\.1:9000"):
        require_free(Listen(host="192.0.2.1", port=9000), "--api")


def test_port_0_becomes_a_free_one() -> None:
    listen = settled(Listen(host=HOST, port=0))
    assert listen.port
    require_free(listen, "--api")
    assert settled(listen) == listen


def test_the_agents_metrics_stand_aside(taken: int) -> None:
    free = settled(Listen(host=HOST, port=0))
    assert metrics_listen(Listen(host=HOST, port=taken - 1), free) is None
    assert metrics_listen(Listen(host="0.0.0.0", port=free.port - 1), free) is None
    assert metrics_listen(Listen(host=HOST, port=free.port - 1), free) is None
    other = Listen(host=HOST, port=1)
    assert metrics_listen(Listen(host=HOST, port=free.port - 1), other) == free


def test_engine_ports_leave_out_what_others_want() -> None:
    first, last = engine_ports(())
    assert last - first == 99
    again, _ = engine_ports({first + 5})
    assert again > first
