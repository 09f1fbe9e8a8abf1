"""Whatever JSON is sent, an answer comes: no request kills its connection."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engines_fake.serving import QUICK, served

PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/tokenize",
    "/detokenize",
    "/sleep",
    "/abort_requests",
    "/collective_rpc",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/fake/faults",
)
FIELDS = tuple(
    """
    model messages prompt input tokens max_tokens max_completion_tokens max_output_tokens temperature n
    stop stop_sequences stream stream_options ignore_eos priority cache_salt echo return_token_ids system
    instructions previous_response_id background store request_ids method lora_name lora_path request_id
    return_token_strs
    """.split()
)
SCALARS = st.none() | st.booleans() | st.integers(-3, 40) | st.floats(allow_nan=False) | st.text(max_size=5)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
MESSAGE = st.fixed_dictionaries({"role": st.just("user")}, optional={"content": JSON})
SENSIBLE: dict[str, Any] = {
    "messages": st.lists(MESSAGE, max_size=2),
    "prompt": st.text(max_size=9) | st.lists(st.integers(0, 2**40), max_size=3),
    "max_tokens": st.integers(1, 5),
    "max_output_tokens": st.integers(1, 5),
    "stream": st.booleans(),
}
BODY = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6) | st.fixed_dictionaries(
    {}, optional={name: SENSIBLE.get(name, JSON) for name in FIELDS}
)
ENVIRONMENT = dict.fromkeys(
    (
        "FAKE_VLLM_CONTROL",
        "VLLM_SERVER_DEV_MODE",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
        "VLLM_ENABLE_RESPONSES_API_STORE",
    ),
    "1",
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PATHS), st.lists(BODY, min_size=1, max_size=4))
def test_every_body_is_answered(path: str, bodies: list[dict[str, Any]]) -> None:
    async def send() -> None:
        async with served(*QUICK, "--fake-output-tokens", "5", "--enable-lora", env=ENVIRONMENT) as engine:
            for body in bodies:
                response = await engine.post(path, body)
                assert response.status in (200, 400, 404, 500)
                if response.status == 500:
                    assert path == "/collective_rpc"
                await engine.post("/wake_up")

    asyncio.run(send())
