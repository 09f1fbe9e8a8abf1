"""Conditions between the keys of `[central]`, `[router]`, `[prometheus]` and `[agent]`."""

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from supervisord_cp.config.findings import Finding
from supervisord_cp.config.schema import AgentConfig, CentralConfig, Listen, PrometheusConfig, RouterConfig
from supervisord_cp.config.sites import Record, Section


def central_listener(record: Record) -> Iterator[Finding]:
    """Whoever reaches the control listener can stop engines: off loopback they show a token."""
    central = record.one(CentralConfig, "central")
    yield from _needs_tokens(
        central, "control_listen", central.value.control_listen, central.value.tokens_file
    )


def agent_listener(record: Record) -> Iterator[Finding]:
    """The agent's own listener tells what runs on the host: off loopback it asks for a token."""
    agent = record.one(AgentConfig, "agent")
    yield from _needs_tokens(agent, "listen", agent.value.listen, agent.value.tokens_file)


def api_listener(record: Record) -> Iterator[Finding]:
    """Engines for everyone may be meant; it is worth a word."""
    router = record.one(RouterConfig, "router")
    listen = router.value.api_listen
    if not listen.loopback and router.value.api_keys_file is None and router.sound("api_keys_file"):
        yield router.warning(
            "api_listen",
            f"is {listen}, and no API key is asked for",
            "set router.api_keys_file, unless everyone who reaches it may use the engines",
        )


def certificate_with_key(record: Record) -> Iterator[Finding]:
    """A certificate is of no use without its key, nor the other way round."""
    router = record.one(RouterConfig, "router")
    files = {"tls_cert": router.value.tls_cert, "tls_key": router.value.tls_key}
    given = [key for key, path in files.items() if path is not None]
    if len(given) == 1 and router.sound(*files):
        (missing,) = files.keys() - given
        yield router.error(given[0], f"needs router.{missing} too")


def listeners_apart(record: Record) -> Iterator[Finding]:
    """Daemons of one host cannot share a port; those of two hosts may, so this is no error."""
    central = record.one(CentralConfig, "central")
    router = record.one(RouterConfig, "router")
    agent = record.one(AgentConfig, "agent")
    listeners: list[
        tuple[Section[CentralConfig] | Section[RouterConfig] | Section[AgentConfig], str, Listen]
    ] = [
        (central, "control_listen", central.value.control_listen),
        (router, "api_listen", router.value.api_listen),
    ]
    if agent.value.listen is not None:
        listeners.append((agent, "listen", agent.value.listen))
    taken: dict[int, str] = {}
    for section, key, listen in listeners:
        name = f"{section.path[0]}.{key}"
        if listen.port and (other := taken.setdefault(listen.port, name)) != name:
            yield section.warning(key, f"has the port of {other}: they cannot run on one host")


def remote_central(record: Record) -> Iterator[Finding]:
    """A central on another host asks for tokens, and its routers reach engines over the network."""
    agent, router = record.one(AgentConfig, "agent"), record.one(RouterConfig, "router")
    for section in (agent, router):
        if _remote(section.value.central) and not section.value.token_file and section.sound("token_file"):
            yield section.warning(
                "central",
                "is another host, which asks for a token",
                f"set {section.path[0]}.token_file",
            )
    if _remote(agent.value.central) and agent.sound("advertise") and _is_loopback(agent.value.advertise):
        yield agent.warning(
            "advertise",
            f"is {agent.value.advertise}, which routers on other hosts cannot reach",
            "write this host's address; engines bind exactly it",
        )


def systemd_user(record: Record) -> Iterator[Finding]:
    """Only systemd starts engines as another user."""
    agent = record.one(AgentConfig, "agent")
    if agent.value.engine_user and agent.value.backend != "systemd" and agent.sound("backend"):
        yield agent.warning("engine_user", 'has no effect without backend = "systemd"')


def executables(record: Record) -> Iterator[Finding]:
    """Programs are named; a pattern would allow more than anybody has looked at."""
    agent = record.one(AgentConfig, "agent")
    for name in agent.value.allow.executables:
        if set(name) & set("*?["):
            yield agent.warning(
                "allow",
                f'executables has "{name}", which allows nothing: patterns are not read there',
                "list each program as deployments write it",
            )


def queries(record: Record) -> Iterator[Finding]:
    """Named queries are PromQL, and somebody has to be asked."""
    prometheus = record.one(PrometheusConfig, "prometheus")
    for name, expression in prometheus.value.queries.items():
        if not expression.strip():
            yield prometheus.error("queries", f"has no expression for `{name}`")
    if prometheus.value.queries and not prometheus.value.url and prometheus.sound("url"):
        yield prometheus.warning("queries", "are never asked", "set prometheus.url")


CHECKS: Final = (
    central_listener,
    agent_listener,
    api_listener,
    certificate_with_key,
    listeners_apart,
    remote_central,
    systemd_user,
    executables,
    queries,
)


def _needs_tokens(
    section: Section[CentralConfig] | Section[AgentConfig], key: str, listen: Listen | None, tokens: object
) -> Iterator[Finding]:
    if listen is not None and not listen.loopback and tokens is None and section.sound("tokens_file"):
        yield section.error(
            key,
            f"is {listen}, which other hosts reach, but there is no tokens_file",
            f"set {section.path[0]}.tokens_file (lines `role: token`), or listen on 127.0.0.1",
        )


def _remote(url: str) -> bool:
    return not _is_loopback(urlsplit(url).hostname or "")


def _is_loopback(host: str) -> bool:
    return Listen(host=host, port=0).loopback
