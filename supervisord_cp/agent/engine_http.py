"""Asking an engine over HTTP: does it serve, what do its metrics say, does it do what it is told."""

from typing import Final

import aiohttp
import msgspec

from supervisord_cp.engines.base import EngineCall
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode

HEALTH_TIMEOUT_S: Final = 5.0
PAGE_TIMEOUT_S: Final = 5.0
PAGE_LIMIT: Final = 16 * 1024 * 1024
ANSWER_LIMIT: Final = 64 * 1024
CONNECTIONS: Final = 512
"""More than engines fit on a host: a hung engine holds up two of them, and nobody else."""


class CallFailed(Exception):
    """An engine did not do what it was told; the text says what it answered."""


class EngineHttp:
    """A client of the engines of this host. No proxies: engines are on addresses of our own."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=4.0), trust_env=False
        )

    async def health(self, url: str, path: str, key: str) -> Reason:
        """NO_REASON when it answers 200, else what is wrong."""
        timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT_S)
        try:
            async with self._session.get(
                url + path, headers=_headers(key), timeout=timeout, allow_redirects=False
            ) as response:
                status = response.status
        except TimeoutError:
            return Reason(code=ReasonCode.HEALTH_TIMEOUT)
        except (aiohttp.ClientError, OSError) as error:
            return Reason(code=ReasonCode.PROBE_FAILED, params={"error": str(error) or type(error).__name__})
        if status == 200:
            return NO_REASON
        return Reason(code=ReasonCode.HEALTH_FAILED, params={"status": status})

    async def page(self, url: str, path: str, key: str) -> str | None:
        """A metrics page; None: there is none to be had now."""
        timeout = aiohttp.ClientTimeout(total=PAGE_TIMEOUT_S)
        try:
            async with self._session.get(
                url + path, headers=_headers(key), timeout=timeout, allow_redirects=False
            ) as response:
                if response.status != 200:
                    return None
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > PAGE_LIMIT:
                        return None
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
        return body.decode(errors="replace")

    async def call(self, url: str, call: EngineCall, key: str, timeout_s: float) -> bytes:
        """What it answers to a command.

        Raises:
            CallFailed: anything but a 200 in time.
        """
        try:
            async with self._session.post(
                url + call.path,
                json=call.body,
                headers=_headers(key),
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                allow_redirects=False,
            ) as response:
                body = await response.content.read(ANSWER_LIMIT)
                status = response.status
        except TimeoutError:
            raise CallFailed(f"POST {call.path}: no answer within {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise CallFailed(f"POST {call.path}: {str(error) or type(error).__name__}") from error
        if status != 200:
            raise CallFailed(f"POST {call.path} answers {status}: {body[:200].decode(errors='replace')}")
        return body

    async def rests(self, url: str, paths: tuple[str, ...], key: str) -> bool:
        """Whether the engine rests on purpose: one of these pages is a JSON object with a true value."""
        for path in paths:
            page = await self.page(url, path, key)
            try:
                answer = msgspec.json.decode(page or "{}")
            except msgspec.DecodeError:
                continue
            if isinstance(answer, dict) and any(value is True for value in answer.values()):
                return True
        return False

    async def close(self) -> None:
        """End all connections."""
        await self._session.close()


def _headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}
