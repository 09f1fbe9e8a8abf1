"""`/v1/messages`: Anthropic's shape."""

from collections.abc import AsyncIterator
from typing import Any, Final

from supervisord_cp.engines.fake.bodies import (
    ApiError,
    Body,
    dumps,
    encode,
    json_reply,
    optional,
    read_json,
    required,
)
from supervisord_cp.engines.fake.connection import Answer, EventStream, Reply
from supervisord_cp.engines.fake.engine import EngineDead, Generation, Work
from supervisord_cp.engines.fake.faults import StreamFailed
from supervisord_cp.engines.fake.generate import Service, request_id
from supervisord_cp.engines.fake.http1 import Request
from supervisord_cp.engines.fake.prompts import Prompt, chat_text, content_text
from supervisord_cp.engines.fake.sampling import read_sampling

_STOP_REASONS: Final = {"stop": "end_turn", "length": "max_tokens", "abort": "end_turn"}


class Messages:
    """The endpoint and its token counter."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def create(self, request: Request) -> Answer:
        self._service.refuse()
        body = read_json(request)
        prompt = self._prompt(body)
        max_tokens = required(body, "max_tokens", int)
        try:
            model = self._service.model(body)
        except ApiError as error:
            return json_reply(_error(error), error.status)
        call_id = f"chatcmpl-{request_id(request, body)}"
        fields = {**body, "stop": body.get("stop_sequences"), "n": 1}
        sampling = read_sampling(request, fields, self._service.options, max_tokens)
        works = self._service.works([prompt], sampling, call_id)
        if optional(body, "stream", bool, False):
            generations = self._service.start(works)
            start = _message(call_id, model, [], None, len(prompt.ids), 0)
            return EventStream(
                events=self._events(start, generations[0]), close=lambda: self._service.stop(generations)
            )
        return await self._whole(call_id, model, prompt, works)

    async def count_tokens(self, request: Request) -> Reply:
        body = read_json(request)
        self._service.model(body)
        count = len(self._prompt(body).ids)
        return json_reply({"input_tokens": count, "context_management": {"original_input_tokens": count}})

    async def _whole(self, call_id: str, model: str, prompt: Prompt, works: list[Work]) -> Reply:
        [result] = await self._service.results(works)
        content = [{"type": "text", "text": result.text}]
        reason = _STOP_REASONS[result.finish_reason]
        return json_reply(_message(call_id, model, content, reason, len(prompt.ids), len(result.token_ids)))

    async def _events(self, start: Body, generation: Generation) -> AsyncIterator[bytes]:
        reason = "end_turn"
        try:
            yield _event({"type": "message_start", "message": start})
            block = {"type": "text", "text": ""}
            yield _event({"type": "content_block_start", "content_block": block, "index": 0})
            async for delta in self._service.deltas(generation):
                reason = _STOP_REASONS.get(delta.finish_reason or "", reason)
                text = {"type": "text_delta", "text": delta.text}
                yield _event({"type": "content_block_delta", "delta": text, "index": 0})
        except (EngineDead, StreamFailed) as error:
            yield _event(_error(ApiError(500, str(error), "InternalServerError")))
            return
        yield _event({"type": "content_block_stop", "index": 0})
        usage = {"input_tokens": start["usage"]["input_tokens"], "output_tokens": generation.job.generated}
        stop = {"stop_reason": reason, "stop_sequence": None}
        yield _event({"type": "message_delta", "delta": stop, "usage": usage})
        yield _event({"type": "message_stop"})

    def _prompt(self, body: Body) -> Prompt:
        messages = list(required(body, "messages", list))
        if body.get("system"):
            messages.insert(0, {"role": "system", "content": content_text(body["system"])})
        return Prompt.of(chat_text(messages))


def _message(
    call_id: str, model: str, content: list[Any], reason: str | None, read: int, written: int
) -> Body:
    message = {
        "id": call_id,
        "type": "message",
        "role": "assistant",
        "content": content,
        "model": model,
        "stop_reason": reason,
    }
    if reason is None:
        message["stop_sequence"] = None
    return message | {"usage": {"input_tokens": read, "output_tokens": written}}


def _event(value: Body) -> bytes:
    return encode(f"event: {value['type']}\ndata: {dumps(value)}\n\n")


def _error(error: ApiError) -> Body:
    return {"type": "error", "error": {"type": error.kind, "message": error.message}}
