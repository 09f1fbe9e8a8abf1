"""The founding document's request, as it is written, against a real vLLM."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_ports
from tests.sdk.programs import HOSTS, LLAMA_7B, Fleet, engine, get, healthy, run
from tests.sdk.test_founding import CODE

FOLDER = os.environ.get("SUPERVISORD_CP_REAL_VLLM", "")
LOADING_S = 600.0
ASK = """answer = await cp.get_result("test-001", timeout=60)
    print(answer.completion_tokens, bool(answer.text))"""

pytestmark = [
    pytest.mark.process,
    pytest.mark.real_vllm,
    pytest.mark.timeout(LOADING_S + 120),
    pytest.mark.skipif(not FOLDER, reason="SUPERVISORD_CP_REAL_VLLM names no folder with a vLLM"),
]


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = Path(FOLDER)
    fleet = Fleet(free_ports(5, *HOSTS))
    names = ("--served-model-name", LLAMA_7B, "--host", "127.0.0.1", "--port", str(fleet.base))
    limits = ("--max-model-len", "2048", "--enforce-eager")
    command = [str(folder / "venv/bin/vllm"), "serve", str(folder / "tiny-llama"), *names, *limits]
    environ = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    log = tmp_path_factory.mktemp("vllm") / "log"
    with engine(command, log, **environ):
        healthy("127.0.0.1", fleet.base, LOADING_S)
        yield fleet


def succeeded(fleet: Fleet) -> float:
    """Requests that vLLM has finished."""
    page = get("127.0.0.1", fleet.base, "/metrics")[1].decode()
    found = re.findall(r"^vllm:request_success_total\{.*\} (\S+)$", page, re.MULTILINE)
    return sum(map(float, found))


def test_a_request(vllm: Fleet) -> None:
    """One test, so that vLLM is loaded once. The program as it is prints nothing: vLLM's count tells."""
    before = succeeded(vllm)
    assert run(vllm.patched(CODE["A request"])) == ""
    assert succeeded(vllm) == before + 1
    asking = CODE["A request"].replace("await asyncio.sleep(5)", ASK)
    assert run(vllm.patched(asking)) == "100 True\n"
