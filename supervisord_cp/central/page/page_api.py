"""The routes of the status page."""

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Final

from aiohttp import web

from supervisord_cp.central.page.feed import Feed
from supervisord_cp.central.page.sessions import COOKIE, LASTS_S, ROLE, Sessions

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ASSETS: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""Nothing from anywhere else, and nothing that somebody wrote into a name or a log is ever run."""


class PageApi:
    """Handlers; `routes()` lists them with a line of documentation each."""

    def __init__(self, feed: Feed, sessions: Sessions | None) -> None:
        """`sessions` is None where no tokens are configured: whoever gets here may do everything."""
        self._feed = feed
        self._sessions = sessions
        folder = files(__package__) / "assets"
        self._assets = {path: (folder / name).read_bytes() for path, (name, _) in ASSETS.items()}

    def routes(self) -> list[tuple[str, str, Handler, str]]:
        """(method, path, handler, what it does)."""
        return [
            ("GET", "/", self.asset, "the status page"),
            ("GET", "/page.css", self.asset, "its style"),
            ("GET", "/page.js", self.asset, "its program"),
            (
                "GET",
                "/api/v1/page/stream",
                self.stream,
                "what the page shows (server-sent events)",
            ),
            ("POST", "/login", self.login, "a cookie for a token of an operator or viewer"),
            ("POST", "/logout", self.logout, "the end of that cookie"),
        ]

    async def asset(self, request: web.Request) -> web.StreamResponse:
        """A file of the page."""
        headers = {
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        }
        kind = ASSETS[request.path][1]
        return web.Response(
            body=self._assets[request.path], content_type=kind, charset="utf-8", headers=headers
        )

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The live feed, until the browser goes away."""
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        role = request[ROLE] or "operator"
        access = {"role": role, "login": self._sessions is not None}
        async for event in self._feed.follow(access):
            await response.write(event)
        return response

    async def login(self, request: web.Request) -> web.StreamResponse:
        """Exchange a token for a cookie that scripts cannot read and other sites cannot use."""
        if self._sessions is None:
            return web.json_response({"message": "no tokens are configured; there is nothing to log in to"})
        body = await request.post()
        cookie = self._sessions.open(str(body.get("token", "")))
        if cookie is None:
            return web.json_response({"error": "this is no token of an operator or viewer"}, status=401)
        response = web.json_response({"message": "logged in"})
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=int(LASTS_S),
            httponly=True,
            samesite="Strict",
            secure=request.secure,
        )
        return response

    async def logout(self, request: web.Request) -> web.StreamResponse:
        """End the session."""
        if self._sessions is not None:
            self._sessions.close(request.cookies.get(COOKIE, ""))
        response = web.json_response({"message": "logged out"})
        response.del_cookie(COOKIE, httponly=True, samesite="Strict")
        return response
