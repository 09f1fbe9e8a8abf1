"""What `/v1/chat/completions` and `/v1/completions` write, byte for byte as vLLM: bodies and events."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from supervisord_cp.engines.fake.bodies import ApiError, Body, dumps, encode, error_value
from supervisord_cp.engines.fake.engine import Delta, Work
from supervisord_cp.engines.fake.generate import Result, Service
from supervisord_cp.engines.fake.prompts import Prompt

_NO_MESSAGE_PARTS: Final = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))
_NO_EXTRAS: Final = dict.fromkeys(("kv_transfer_params", "ec_transfer_params", "metrics"))
_NOTHING_YET: Final = '"logprobs":null,"finish_reason":null'


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """What a stream shows besides its text."""

    usage: bool
    continuous: bool
    token_ids: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to generate, read and checked."""

    id: str
    model: str
    prompts: tuple[Prompt, ...]
    works: tuple[Work, ...]
    choices: int
    """Sequences per prompt."""
    created: int
    streaming: bool
    show: StreamOptions
    echo: bool


class Shape(Protocol):
    """How an endpoint writes what was generated."""

    def whole(self, results: Sequence[Result]) -> Body:
        """The body of a response that is not streamed."""
        ...

    def opening(self) -> Iterator[bytes]:
        """Events before the first token."""
        ...

    def chunk(self, index: int, delta: Delta, generated: int) -> bytes:
        """The event of a delta; the sequence has `generated` tokens by now."""
        ...

    def closing(self, usage: Body) -> bytes:
        """The event with the usage of the whole request."""
        ...


class ChatShape:
    def __init__(self, service: Service, call: Call) -> None:
        self._service = service
        self._call = call
        self._head = _stream_head(call, "chat.completion.chunk")

    def whole(self, results: Sequence[Result]) -> Body:
        call = self._call
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": result.text, **_NO_MESSAGE_PARTS},
                "logprobs": None,
                "finish_reason": result.finish_reason,
                "stop_reason": result.stop_reason,
                "token_ids": list(result.token_ids) if call.show.token_ids else None,
                "routed_experts": None,
            }
            for index, result in enumerate(results)
        ]
        return {
            "id": call.id,
            "object": "chat.completion",
            "created": call.created,
            "model": call.model,
            "choices": choices,
            **_whole_tail(self._service, call, results),
            "prompt_logprobs": None,
            "prompt_token_ids": list(call.prompts[0].ids) if call.show.token_ids else None,
            "prompt_text": None,
            **_NO_EXTRAS,
        }

    def opening(self) -> Iterator[bytes]:
        ids = dumps(list(self._call.prompts[0].ids)) if self._call.show.token_ids else "null"
        usage = _usage_so_far(self._service, self._call, 0, 0)
        for index in range(len(self._call.works)):
            choice = f'{{"index":{index},"delta":{{"role":"assistant","content":""}},{_NOTHING_YET}}}'
            yield encode(f'{self._head}[{choice}]{usage},"prompt_token_ids":{ids},"prompt_text":null}}\n\n')

    def chunk(self, index: int, delta: Delta, generated: int) -> bytes:
        call = self._call
        ids = dumps(delta.token_ids) if call.show.token_ids else "null"
        text = f'{{"index":{index},"delta":{{"content":{dumps(delta.text)}}},"logprobs":null,"finish_reason":'
        usage = _usage_so_far(self._service, call, index, generated)
        if delta.finish_reason is None:
            return encode(f'{self._head}[{text}null,"token_ids":{ids}}}]{usage}}}\n\n')
        end = f'"{delta.finish_reason}","stop_reason":{dumps(delta.stop_reason)},"token_ids":{ids}}}]{usage}'
        return encode(f"{self._head}[{text}{end}{_fingerprint(self._service, call)}}}\n\n")

    def closing(self, usage: Body) -> bytes:
        return _usage_event(self._head, self._service, usage)


class TextShape:
    def __init__(self, service: Service, call: Call) -> None:
        self._service = service
        self._call = call
        self._head = _stream_head(call, "text_completion")

    def whole(self, results: Sequence[Result]) -> Body:
        call = self._call
        choices = [
            {
                "index": index,
                "text": (self._prompt(index).text if call.echo else "") + result.text,
                "logprobs": None,
                "finish_reason": result.finish_reason,
                "stop_reason": result.stop_reason,
                "token_ids": list(result.token_ids) if call.show.token_ids else None,
                "prompt_logprobs": None,
                "prompt_token_ids": list(self._prompt(index).ids) if call.show.token_ids else None,
                "routed_experts": None,
            }
            for index, result in enumerate(results)
        ]
        return {
            "id": call.id,
            "object": "text_completion",
            "created": call.created,
            "model": call.model,
            "choices": choices,
            **_whole_tail(self._service, call, results),
            **_NO_EXTRAS,
        }

    def opening(self) -> Iterator[bytes]:
        return iter(())

    def chunk(self, index: int, delta: Delta, generated: int) -> bytes:
        call = self._call
        first = generated <= 1
        text = (self._prompt(index).text if call.echo and first else "") + delta.text
        ids = dumps(delta.token_ids) if call.show.token_ids else "null"
        prompt_ids = dumps(list(self._prompt(index).ids)) if call.show.token_ids and first else "null"
        reason = dumps(delta.finish_reason)
        choice = (
            f'{{"index":{index},"text":{dumps(text)},"logprobs":null,"finish_reason":{reason},'
            f'"stop_reason":{dumps(delta.stop_reason)},"prompt_token_ids":{prompt_ids},"token_ids":{ids}}}'
        )
        tail = _usage_so_far(self._service, call, index, generated)
        if delta.finish_reason is not None:
            tail += _fingerprint(self._service, call)
        return encode(f"{self._head}[{choice}]{tail}}}\n\n")

    def closing(self, usage: Body) -> bytes:
        return _usage_event(self._head, self._service, usage)

    def _prompt(self, index: int) -> Prompt:
        return self._call.prompts[index // self._call.choices]


def error_frame(message: str) -> bytes:
    """The event that vLLM ends a broken stream with, before `[DONE]`. It has spaces, as vLLM's has."""
    error = ApiError(500, message, "InternalServerError")
    return encode(f"data: {json.dumps(error_value(error), ensure_ascii=False)}\n\n")


def _stream_head(call: Call, kind: str) -> str:
    start = {"id": call.id, "object": kind, "created": call.created, "model": call.model}
    return f'data: {dumps(start)[:-1]},"choices":'


def _usage_so_far(service: Service, call: Call, index: int, generated: int) -> str:
    if not (call.show.usage and call.show.continuous):
        return ""
    prompt = call.prompts[index // call.choices]
    return f',"usage":{dumps(service.usage([prompt], generated))}'


def _fingerprint(service: Service, call: Call) -> str:
    return "" if call.show.usage else f',"system_fingerprint":"{service.fingerprint}"'


def _usage_event(head: str, service: Service, usage: Body) -> bytes:
    return encode(f'{head}[],"usage":{dumps(usage)},"system_fingerprint":"{service.fingerprint}"}}\n\n')


def _whole_tail(service: Service, call: Call, results: Sequence[Result]) -> Body:
    usage = service.usage(call.prompts, sum(len(result.token_ids) for result in results))
    details = {"prompt_tokens_details": None, "completion_tokens_details": None}
    return {"service_tier": None, "system_fingerprint": service.fingerprint, "usage": usage | details}
