"""What the processes of a router are run on: a configuration that was accepted, and sockets that listen."""

import asyncio
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from supervisord_cp.adapters.sd_notify import Notifier, take_sockets
from supervisord_cp.config.load import Reading, read, read_file
from supervisord_cp.config.schema import Config, Listen, RouterConfig
from supervisord_cp.errors import UsageError
from supervisord_cp.plugin_host.checks import checked
from supervisord_cp.router.auth import ApiKeys
from supervisord_cp.router.listener import bind, listens_at, url_of
from supervisord_cp.router.tls import certificate_of
from supervisord_cp.router.tracing import check_tracing

FREED_S: Final = 2.0
"""How long an address may take to be free after those who served it have lost who held it."""
AGAIN_S: Final = 0.05
_FDNAME: Final = "api"


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """Replaced as a whole, so that there is a way back."""

    config: Config
    text: int
    """Its text, as a descriptor of `kept_text`: what the file says by now is for the next restart."""
    listeners: tuple[socket.socket, ...]

    @property
    def router(self) -> RouterConfig:
        return self.config.router

    @property
    def url(self) -> str:
        """Where clients connect."""
        return url_of(self.listeners[0], tls=self.router.tls_cert is not None)

    @property
    def name(self) -> str:
        """Of the address, on this host and for this user."""
        host, port = self.listeners[0].getsockname()[:2]
        return f"{os.getuid()}/{host}:{port}"

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Of the listeners."""
        return tuple(one.fileno() for one in self.listeners)

    def keep(self, notifier: Notifier, *, instead: bool) -> None:
        """Have systemd hold the listeners while we are restarted, `instead` of others."""
        notifier.keep(self.listeners, _FDNAME, instead=instead)

    def close(self, *, but: "Basis | None" = None) -> None:
        """Let go of it, `but` not of what another one has, too."""
        if but is None or but.listeners is not self.listeners:
            for listening in self.listeners:
                listening.close()
        os.close(self.text)


async def first_basis(path: Path, notifier: Notifier) -> Basis:
    """The configuration in a file, and its address: from systemd if that has it, else bound by us.

    Raises:
        ConfigErrors: the configuration is wrong.
        UsageError: it asks for what cannot be (address taken, certificate unreadable, …).
    """
    reading = read_file(path)
    config = _usable(reading)
    passed = take_sockets(os.environ)
    if passed and listens_at(passed, config.router.api_listen):
        return Basis(config=config, text=kept_text(reading.text), listeners=tuple(passed))
    for one in passed:
        one.close()
    bound = await _bound_soon(config.router.api_listen)
    made = Basis(config=config, text=kept_text(reading.text), listeners=tuple(bound))
    made.keep(notifier, instead=bool(passed))
    return made


def next_basis(before: Basis, path: Path, notifier: Notifier) -> Basis:
    """The configuration as it is in the file by now; the listeners stay, unless it names another address.

    Raises:
        ConfigErrors, UsageError: as `first_basis`.
    """
    reading = read_file(path)
    config = _usable(reading)
    if listens_at(before.listeners, config.router.api_listen):
        return Basis(config=config, text=kept_text(reading.text), listeners=before.listeners)
    bound = tuple(bind(config.router.api_listen))
    made = Basis(config=config, text=kept_text(reading.text), listeners=bound)
    made.keep(notifier, instead=True)
    return made


def resumed_basis(path: Path, text: int, listeners: tuple[int, ...]) -> Basis:
    """The one that was in use before our program was replaced, by its descriptors."""
    return Basis(
        config=checked(read(text_in(text), path)),
        text=text,
        listeners=tuple(socket.socket(fileno=one) for one in listeners),
    )


def kept_text(text: str) -> int:
    """A descriptor of memory with a text, for processes to inherit."""
    descriptor = os.memfd_create("supervisord-cp-config")
    with open(descriptor, "w", encoding="utf-8", closefd=False) as file:  # a descriptor
        file.write(text)
    return descriptor


def text_in(descriptor: int) -> str:
    """What `kept_text` has kept. The position is shared by all who inherit it, so it is left alone."""
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode()


def _usable(reading: Reading) -> Config:
    """The configuration that was read. What every process would complain of is said once, by us."""
    config = checked(reading)
    certificate_of(config.router)
    ApiKeys(config.router.api_keys_file)
    check_tracing(config.router)
    return config


async def _bound_soon(listen: Listen) -> list[socket.socket]:
    deadline = time.monotonic() + FREED_S
    while True:
        try:
            return bind(listen)
        except UsageError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(AGAIN_S)
