"""Requests become HTTP, answers become completions."""

import json
from typing import Any

import pytest

from supervisord_cp.model.request import RequestPriority
from supervisord_cp.router.exchange import MemoryExchange, request_head
from supervisord_cp.sdk.errors import RequestFailed
from supervisord_cp.sdk.messages import body_of, completion_of, head_of
from supervisord_cp.sdk.types import Completion, RequestMetadata

REQUEST = RequestMetadata(request_id="r-1", prompt="Hello")


def body(**fields: Any) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(body_of(RequestMetadata(**fields)))
    return read


def answered(
    answer: object, status: int = 200, *, headers: dict[str, str] | None = None, complete: bool = True
) -> Completion:
    exchange = MemoryExchange(request_head("POST", "/"))
    exchange.status = status
    exchange.headers = {"x-supervisord-cp-instance": "gpu-0", **(headers or {})}
    exchange.answer += answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    exchange.complete = complete
    return completion_of(REQUEST, exchange, 12.5)


def test_a_prompt_is_a_completion() -> None:
    head = head_of(REQUEST, 0.0)
    assert (head.method, head.path, body(prompt="Hello")) == (b"POST", "/v1/completions", {"prompt": "Hello"})


def test_messages_are_a_chat() -> None:
    messages = [{"role": "user", "content": "Hallo, Öl!"}]
    assert head_of(RequestMetadata(messages=messages), 0.0).path == "/v1/chat/completions"
    assert body(messages=messages, model_name="m") == {"model": "m", "messages": messages}


def test_what_is_said_goes_into_the_body() -> None:
    given = {"max_tokens": 0, "temperature": 0.0, "top_p": 0.5}
    extra = {"stop": ["\n"], "seed": 7}
    assert body(prompt="p", **given, user_id="ü", extra=extra) == {
        "prompt": "p",
        **given,
        "user": "ü",
        **extra,
    }


def test_what_the_router_reads_goes_into_the_head() -> None:
    head = head_of(
        RequestMetadata(
            request_id="r-2",
            prompt="p",
            priority=RequestPriority.BACKGROUND,
            slo_deadline_ms=1000,
            session_id="s 1",
            cost_budget=0.0125,
            submitted_at=10.0,
        ),
        10.25,
    )
    said = {
        name: head.value(name)
        for name in (b"x-request-id", b"x-priority", b"x-deadline-ms", b"x-session-id", b"x-cost-budget")
    }
    assert list(said.values()) == ["r-2", "background", "750", "s 1", "0.0125"]


def test_a_deadline_that_has_passed() -> None:
    late = RequestMetadata(prompt="p", slo_deadline_ms=100, submitted_at=10.0)
    assert head_of(late, 11.0).value(b"x-deadline-ms") == "0"


def test_a_completion() -> None:
    answer = {
        "model": "llama",
        "choices": [{"text": " there", "finish_reason": "length"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    assert answered(answer) == Completion(
        request_id="r-1",
        text=" there",
        finish_reason="length",
        model_name="llama",
        instance_id="gpu-0",
        prompt_tokens=3,
        completion_tokens=2,
        latency_ms=12.5,
        response=answer,
    )


def test_a_chat() -> None:
    assert answered({"choices": [{"message": {"content": "Hi"}}]}).text == "Hi"


@pytest.mark.parametrize("message", [{}, {"content": None, "tool_calls": [{}]}])
def test_a_chat_without_text(message: dict[str, Any]) -> None:
    completion = answered({"choices": [{"message": message}]})
    assert completion.text == ""
    assert completion.response["choices"][0]["message"] == message


@pytest.mark.parametrize(
    ("status", "body", "headers", "reason", "message"),
    [
        (
            429,
            {"error": {"message": "Too many."}},
            {"x-supervisord-cp-reason": "queue_full"},
            "queue_full",
            "Too many.",
        ),
        (400, {"error": {"message": "Bad temperature."}}, {}, "engine_error", "Bad temperature."),
        (400, {"object": "error", "message": "Old shape."}, {}, "engine_error", "Old shape."),
        (500, b"Internal Server Error\n", {}, "engine_error", "Internal Server Error"),
        (500, b"", {}, "engine_error", "the answer is HTTP 500"),
    ],
)
def test_errors(status: int, body: object, headers: dict[str, str], reason: str, message: str) -> None:
    with pytest.raises(RequestFailed) as raised:
        answered(body, status, headers=headers)
    error = raised.value
    assert (error.request_id, error.status, error.reason, error.message) == ("r-1", status, reason, message)


def test_an_answer_that_broke_off() -> None:
    with pytest.raises(RequestFailed, match="broke off") as raised:
        answered(b'{"choices": [', complete=False)
    assert raised.value.reason == "upstream_lost"


@pytest.mark.parametrize("body", [b"", b"not json", [], {}, {"choices": []}, {"choices": "x"}, 7])
def test_nonsense(body: object) -> None:
    with pytest.raises(RequestFailed) as raised:
        answered(body)
    assert raised.value.reason == "invalid_answer"


@pytest.mark.parametrize("choice", [None, 7, {"text": 7}, {"message": []}])
def test_a_choice_without_text(choice: object) -> None:
    assert answered({"choices": [choice], "usage": {"prompt_tokens": "x"}}).text == ""
