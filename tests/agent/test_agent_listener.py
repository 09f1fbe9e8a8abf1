"""The agent's own pages, and who may read them."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from supervisord_cp.adapters.tokens import TokenFile
from supervisord_cp.agent.listener import Listener, tokens_of
from supervisord_cp.agent.metrics import AgentCollector, page
from supervisord_cp.config.schema import AgentConfig, Listen
from supervisord_cp.errors import UsageError
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.gpu import Gpu, GpuHealth, GpuSigns
from supervisord_cp.model.instance import ExitCause, InstanceState
from supervisord_cp.ports.gpu import GpuReading
from supervisord_cp.ports.process import ExitStatus
from tests.agent.fakes import assembled
from tests.core.instances_kit import desired
from tests.ports import free_ports
from tests.waiting import until


@asynccontextmanager
async def served(tokens: TokenFile | None = None) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    listen = Listen(host="127.0.0.1", port=free_ports(1))
    listener = Listener(listen, tokens=tokens, metrics=lambda: b"a 1\n")
    await listener.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield session, listen.url
    finally:
        await listener.close()


@pytest.mark.asyncio
async def test_pages() -> None:
    async with served() as (session, url):
        async with session.get(f"{url}/healthz") as response:
            assert (response.status, await response.text()) == (200, "ok\n")
        async with session.get(f"{url}/metrics") as response:
            assert (response.status, await response.text()) == (200, "a 1\n")
            assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        async with session.get(f"{url}/") as response:
            assert response.status == 404


@pytest.mark.asyncio
async def test_metrics_want_a_token_when_there_are_tokens(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("viewer: secret\n")
    async with served(TokenFile(tmp_path / "tokens")) as (session, url):
        for header, status in (("", 401), ("Bearer wrong", 401), ("Bearer secret", 200)):
            async with session.get(f"{url}/metrics", headers={"Authorization": header}) as response:
                assert response.status == status
        async with session.get(f"{url}/healthz") as response:
            assert response.status == 200


@pytest.mark.asyncio
async def test_an_address_that_is_taken_is_a_usage_error() -> None:
    async with served() as (_, url):
        port = int(url.rpartition(":")[2])
        other = Listener(Listen(host="127.0.0.1", port=port), tokens=None, metrics=lambda: b"")
        with pytest.raises(UsageError, match=rf"127\.0\.0\.1:{port} cannot be bound"):
            await other.start()


def test_off_loopback_a_tokens_file_is_needed(tmp_path: Path) -> None:
    outside = Listen(host="192.168.1.5", port=1)
    assert tokens_of(AgentConfig()) is None
    assert tokens_of(AgentConfig(listen=None)) is None
    with pytest.raises(UsageError, match="tokens_file is not set"):
        tokens_of(AgentConfig(listen=outside))
    (tmp_path / "tokens").write_text("viewer: secret\n")
    guarded = tokens_of(AgentConfig(listen=outside, tokens_file=tmp_path / "tokens"))
    assert guarded is not None
    assert guarded.role_of("Bearer secret") == "viewer"


@pytest.mark.asyncio
async def test_the_metrics_page(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.gpu.reading = GpuReading(
            gpus=(
                Gpu(uuid=DeviceId("GPU-a"), index=3, memory_used=7, utilization=0.5, age_ms=1500),
                Gpu(uuid=DeviceId("GPU-b"), index=4, health=GpuHealth.LOST, signs=GpuSigns(xids={79: 2})),
            )
        )
        parts.reporter.begin()
        parts.take(desired("chat-0"), desired("chat-1", devices=("slot-1",)))
        await until(lambda: parts.state_of("chat-0") is parts.state_of("chat-1") is InstanceState.READY)
        parts.engine.cause = ExitCause.GPU_FAULT
        parts.backend.processes[desired("chat-1").id].end(ExitStatus(code=1))
        await until(lambda: parts.state_of("chat-1") is InstanceState.BACKOFF)
        text = page(AgentCollector(parts.roster, parts.reporter, parts.gpu, lambda: True)).decode()
        figures = dict(re.findall(r"^supervisord_cp_agent_(\S+) (\S+)$", text, re.MULTILINE))
        assert figures['instances{state="ready"}'] == "1.0"
        assert figures['instances{state="backoff"}'] == "1.0"
        assert figures['instances{state="stopped"}'] == "0.0"
        assert figures['instance_failures_total{deployment="chat",instance_id="chat-1"}'] == "1.0"
        assert figures["connected"] == "1.0"
        assert float(figures["reports_total"]) == parts.reporter.sent > 0
        assert figures['gpu_memory_used_bytes{gpu="3",uuid="GPU-a"}'] == "7.0"
        assert figures['gpu_utilization_ratio{gpu="3",uuid="GPU-a"}'] == "0.5"
        assert figures['gpu_sample_age_seconds{gpu="3",uuid="GPU-a"}'] == "1.5"
        assert figures['gpu_health{gpu="4",state="lost",uuid="GPU-b"}'] == "1.0"
        assert figures['gpu_health{gpu="4",state="healthy",uuid="GPU-b"}'] == "0.0"
        assert figures['gpu_xid_errors_total{gpu="4",uuid="GPU-b",xid="79"}'] == "2.0"
        known = ("gpu_sample_age", "gpu_health", "gpu_xid_errors")
        assert not any("GPU-b" in name for name in figures if not name.startswith(known))
