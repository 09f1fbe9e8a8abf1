"""Ports for daemons that tests start: nobody else's, whatever runs beside them."""

import random
import socket
from contextlib import ExitStack
from typing import Final

FIRST: Final = 10_000
LAST: Final = 32_000
"""Below those that the kernel gives to clients (net.ipv4.ip_local_port_range)."""
BLOCK: Final = 20

_claims: Final[list[socket.socket]] = []
"""Names in the kernel's abstract namespace: ours until this process ends."""


def free_ports(count: int, *hosts: str) -> int:
    """The first of `count` ports in a row (at most 20 a block) that are free on all hosts (127.0.0.1).

    No other test process is given them as long as this one lives.
    """
    assert count <= BLOCK
    for base in random.sample(range(FIRST, LAST, BLOCK), 200):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind(f"\0supervisord-cp-tests-{base}")
            with ExitStack() as held:
                for host in hosts or ("127.0.0.1",):
                    for port in range(base, base + count):
                        held.enter_context(socket.socket()).bind((host, port))
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return base
    raise AssertionError("no free ports")
