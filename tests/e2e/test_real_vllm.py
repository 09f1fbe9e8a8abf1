"""`supervisord-cp up` with a real vLLM on the CPU."""

import os
from collections.abc import Iterator
from pathlib import Path

import anthropic
import httpx
import openai
import pytest

from tests.e2e.local import Up, running
from tests.waiting import eventually

FOLDER = os.environ.get("SUPERVISORD_CP_REAL_VLLM", "")
MODEL = "tiny-llama"
QUESTION = [{"role": "user", "content": "def main():"}]
LOADING_S = 600.0

pytestmark = [
    pytest.mark.process,
    pytest.mark.real_vllm,
    pytest.mark.timeout(LOADING_S + 120),
    pytest.mark.skipif(not FOLDER, reason="SUPERVISORD_CP_REAL_VLLM names no folder with a vLLM"),
]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = Path(FOLDER)
    words = (
        str(folder / MODEL),
        "--vllm",
        str(folder / "venv/bin/vllm"),
        "--device",
        "cpu",
        "--replicas",
        "2",
    )
    with running(tmp_path_factory.mktemp("vllm"), *words) as up:
        eventually(lambda: "2 of 2 engines ready" in up.output, "two engines are ready", LOADING_S)
        yield up


@pytest.fixture(scope="module")
def client(up: Up) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{up.api}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models(client: openai.OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=16, temperature=0)
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_a_stream_is_the_same_text_in_pieces(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=16, temperature=0)
    pieces = []
    with client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=16, temperature=0, stream=True
    ) as stream:
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len(pieces) > 2
    assert "".join(pieces) == whole.choices[0].message.content


def test_text_is_what_each_engine_itself_answers(up: Up, client: openai.OpenAI) -> None:
    body = {"model": MODEL, "prompt": "import os", "max_tokens": 16, "temperature": 0}
    routed = client.completions.create(**body).choices[0].text
    urls = [item["url"] for item in up.instances().values()]
    assert len(urls) == 2
    for url in urls:
        direct = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()
        assert direct["choices"][0]["text"] == routed


def test_usage_of_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=8, stream=True, stream_options={"include_usage": True}
    ) as stream:
        usages = [chunk.usage for chunk in stream if chunk.usage]
    assert usages[-1].completion_tokens == 8


def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=MODEL, prompt="x", max_tokens=-1)
    with pytest.raises(openai.NotFoundError) as unknown:
        client.completions.create(model="none", prompt="x")
    assert refused.value.request_id
    assert unknown.value.code == "model_unknown"


def test_anthropic_messages(up: Up) -> None:
    asked = {"model": MODEL, "max_tokens": 8, "messages": QUESTION, "extra_body": {"temperature": 0}}
    with anthropic.Anthropic(base_url=up.api, api_key="none", max_retries=0) as ai:
        whole = ai.messages.create(**asked)
        assert whole.usage.output_tokens == 8
        assert whole._request_id
        with ai.messages.stream(**asked) as stream:
            text = "".join(stream.text_stream)
        assert text == whole.content[0].text
        with pytest.raises(anthropic.NotFoundError):
            ai.messages.create(**asked | {"model": "none"})


def test_httpx_lines(up: Up) -> None:
    body = {"model": MODEL, "prompt": "x", "max_tokens": 4, "stream": True}
    with httpx.stream("POST", f"{up.api}/v1/completions", json=body, timeout=60) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"


def test_the_full_path_is_a_name_too(client: openai.OpenAI) -> None:
    name = str((Path(FOLDER) / MODEL).resolve())
    assert client.completions.create(model=name, prompt="x", max_tokens=2).choices[0].text


def test_the_end_leaves_no_process_of_vllm(up: Up) -> None:
    """The last one: the fleet is gone after it."""
    names = [process.name() for process in up.processes()]
    assert sum(name.startswith("VLLM::") for name in names) >= 2
    assert up.stop() == 0
    assert up.processes() == []
