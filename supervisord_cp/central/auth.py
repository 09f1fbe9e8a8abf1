"""Who may ask what of the control listener, and from where."""

import ipaddress
from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from supervisord_cp.adapters.tokens import TokenFile
from supervisord_cp.central.admitted import Admitted
from supervisord_cp.central.page.page_api import ASSETS
from supervisord_cp.central.page.sessions import COOKIE, ROLE, Sessions
from supervisord_cp.config.schema import Config
from supervisord_cp.errors import UsageError
from supervisord_cp.wire.messages import AGENT_PATH, ROUTER_PATH

_CONNECTING: Final = frozenset({AGENT_PATH, ROUTER_PATH})
"""Links look after these themselves."""
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/login", *ASSETS})
"""The page itself tells nothing; what it shows needs a token."""


def tokens_of(config: Config) -> TokenFile | None:
    """The tokens that guard the control listener; None on loopback without a tokens file.

    Raises:
        UsageError: the listener is reachable from other machines and no tokens file is configured.
    """
    central = config.central
    if central.tokens_file is not None:
        return TokenFile(central.tokens_file)
    if not central.control_listen.loopback:
        raise UsageError(
            f"[central] control_listen = {central.control_listen} is not loopback and tokens_file is not "
            "set: anybody who reaches it could start programs. Write lines `agent: TOKEN` and "
            "`operator: TOKEN` to a file of mode 0600 and name it in [central] tokens_file, "
            "or listen on 127.0.0.1"
        )
    return None


def guard(
    tokens: TokenFile | None,
    refused: Callable[[], None] = lambda: None,
    sessions: Sessions | None = None,
    admitted: Admitted | None = None,
) -> Middleware:
    """The middleware that lets a request pass, or answers 401 or 403 and calls `refused`.

    Who passes is `request[ROLE]`, and is held by `admitted` until the request is answered.
    """
    held = (admitted or Admitted()).held

    def role_of(request: web.Request, tokens: TokenFile) -> tuple[str | None, tuple[int, str] | None]:
        role = tokens.role_of(request.headers.get("Authorization", ""))
        if role is None and sessions is not None:
            return _by_cookie(request, sessions)
        return role, None

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = _cross_site(request)
        request[ROLE] = ""
        role: str | None = None
        if refusal is None and tokens is not None and request.path not in OPEN_PATHS:
            role, refusal = role_of(request, tokens)
            request[ROLE] = role or ""
            refusal = refusal or _role_refusal(request, role)
        elif refusal is None and tokens is None:
            refusal = _rebinding(request)
        if refusal is not None:
            refused()
            status, message = refusal
            return web.json_response({"error": message}, status=status)
        if tokens is None or role is None or request.path in _CONNECTING:
            return await handler(request)
        with held(request, lambda: role_of(request, tokens)[0] == role):
            return await handler(request)

    return middleware


def _by_cookie(request: web.Request, sessions: Sessions) -> tuple[str | None, tuple[int, str] | None]:
    """The role of a browser that is logged in. A browser sends cookies along whoever wrote the link, so that
    whatever changes something must say that it comes from our own page."""
    role = sessions.role(request.cookies.get(COOKIE, ""))
    if role is not None and request.method not in ("GET", "HEAD") and "Origin" not in request.headers:
        return role, (403, "a request with the page's cookie must name its Origin")
    return role, None


def _role_refusal(request: web.Request, role: str | None) -> tuple[int, str] | None:
    if role is None:
        return (
            401,
            "a token is needed: Authorization: Bearer TOKEN, one of the lines of [central] tokens_file",
        )
    connecting = request.path in _CONNECTING
    allowed = {"agent"} if connecting else {"operator"}
    if not connecting and request.method in ("GET", "HEAD"):
        allowed |= {"viewer", "agent"}
    if role not in allowed:
        return 403, f"the role {role} may not do this; {' or '.join(sorted(allowed))} may"
    return None


def _cross_site(request: web.Request) -> tuple[int, str] | None:
    """A browser says where a request comes from; another site has no business here."""
    origin = request.headers.get("Origin")
    if origin is None or origin.partition("//")[2] == request.host:
        return None
    return 403, f"requests from {origin} are not accepted here"


def _rebinding(request: web.Request) -> tuple[int, str] | None:
    """Without tokens a name that resolves to loopback must not let a web page in."""
    host = request.host.rpartition(":")[0] if not request.host.endswith("]") else request.host
    host = (host or request.host).strip("[]")
    if host == "localhost":
        return None
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return 403, f"unknown host {host}: use the address, or configure [central] tokens_file"
    return None
