"""Prometheus through prometheus-api-client, which blocks: in a small pool of its own, with deadlines."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from supervisord_cp.ports.prometheus import PromFailed, PromSample

THREADS: Final = 2
GRACE_S: Final = 1.0
"""The client's own time-out comes first; this is for what it does not cover (a slow trickle of bytes)."""


class PrometheusClient:
    """A `PrometheusPort`."""

    def __init__(self, url: str, timeout_s: float) -> None:
        session = requests.Session()
        adapter = HTTPAdapter(pool_maxsize=THREADS, max_retries=Retry(total=0))
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        self._session = session
        self._timeout_s = timeout_s
        self._client = PrometheusConnect(
            url=url, session=session, retry=Retry(total=0), timeout=timeout_s, method="POST"
        )
        self._pool = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="prometheus")
        self._busy = 0

    async def query(self, expression: str) -> tuple[PromSample, ...]:
        if self._busy >= THREADS:
            raise PromFailed("Prometheus has not answered earlier queries yet")
        self._busy += 1
        running = asyncio.get_running_loop().run_in_executor(self._pool, self._ask, expression)
        running.add_done_callback(self._done)
        try:
            async with asyncio.timeout(self._timeout_s + GRACE_S):
                return await asyncio.shield(running)
        except TimeoutError:
            raise PromFailed(f"no answer within {self._timeout_s:g} s") from None

    def _done(self, running: asyncio.Future[tuple[PromSample, ...]]) -> None:
        self._busy -= 1
        if not running.cancelled():
            running.exception()  # it has been told, or nobody waits for it any more

    def _ask(self, expression: str) -> tuple[PromSample, ...]:
        try:
            result = self._client.custom_query(query=expression)
        except PrometheusApiClientException as error:
            raise PromFailed(_short(error)) from error
        except requests.Timeout as error:
            raise PromFailed(f"no answer within {self._timeout_s:g} s") from error
        except requests.RequestException as error:
            raise PromFailed(_short(error)) from error
        try:
            return tuple(_sample(series) for series in result)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise PromFailed("the answer is no instant vector; is the query a range?") from error

    def close(self) -> None:
        """Let go; a query that hangs ends with its own time-out."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._session.close()


def _sample(series: dict[str, object]) -> PromSample:
    labels, value = series["metric"], series["value"]
    if not isinstance(labels, dict) or not isinstance(value, list):
        raise TypeError
    return PromSample(labels={str(k): str(v) for k, v in labels.items()}, value=float(value[1]))


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
