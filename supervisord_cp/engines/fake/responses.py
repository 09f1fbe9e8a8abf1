"""`/v1/responses`: OpenAI's newer shape. Stored responses live in this process's memory, as vLLM's do."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
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
from supervisord_cp.engines.fake.engine import EngineDead, Generation
from supervisord_cp.engines.fake.faults import StreamFailed
from supervisord_cp.engines.fake.generate import Service, new_id, now
from supervisord_cp.engines.fake.http1 import Request
from supervisord_cp.engines.fake.prompts import Prompt, chat_text
from supervisord_cp.engines.fake.sampling import read_sampling

_NO_STORE: Final = (
    "This vLLM engine does not support `store=True` and therefore does not support the background mode. "
    "To enable these features, set the environment variable `VLLM_ENABLE_RESPONSES_API_STORE=1` when "
    "launching the vLLM server."
)


@dataclass(slots=True, kw_only=True)
class _Job:
    """A response in the making."""

    value: Body
    message_id: str
    generations: list[Generation]
    prompt_tokens: int


class Responses:
    """The endpoint and its store."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stored: dict[str, Body] = {}
        self._background: dict[str, asyncio.Task[Body]] = {}

    async def create(self, request: Request) -> Answer:
        self._service.refuse()
        body = read_json(request)
        background = optional(body, "background", bool, False)
        if background and not self._service.options.store_responses:
            raise ApiError(400, _NO_STORE, "invalid_request_error", "background")
        job = self._start(request, body, background)
        store = self._service.options.store_responses and optional(body, "store", bool, True)
        if store:
            self._stored[job.value["id"]] = job.value
        if optional(body, "stream", bool, False):
            return EventStream(events=self._events(job), close=lambda: self._service.stop(job.generations))
        if background:
            task = asyncio.create_task(self._complete(job))
            self._background[job.value["id"]] = task
            task.add_done_callback(self._forget)
            return json_reply(job.value | {"status": "queued"})
        return json_reply(await self._complete(job))

    async def get(self, request: Request) -> Reply:
        return json_reply(self._find(request.path.rpartition("/")[2]))

    async def cancel(self, request: Request) -> Reply:
        response_id = request.path.split("/")[-2]
        value = self._find(response_id)
        task = self._background.get(response_id)
        if task is None:
            text = "Cannot cancel a synchronous response."
            raise ApiError(400, text, "invalid_request_error", "response_id")
        task.cancel()
        value["status"] = "cancelled"
        return json_reply(value)

    def _forget(self, task: asyncio.Task[Body]) -> None:
        self._background = {key: other for key, other in self._background.items() if other is not task}
        if not task.cancelled():
            task.exception()  # it is in the stored response; nobody else asks

    def _find(self, response_id: str) -> Body:
        value = self._stored.get(response_id)
        if value is None:
            text = f"Response with id '{response_id}' not found."
            raise ApiError(404, text, "invalid_request_error", "response_id")
        return value

    def _start(self, request: Request, body: Body, background: bool) -> _Job:
        model = self._service.model(body)
        prompt = Prompt.of(self._prompt_text(body))
        max_tokens = optional(body, "max_output_tokens", int, None)
        sampling = read_sampling(request, body, self._service.options, max_tokens)
        response_id = f"resp_{new_id()}"
        works = self._service.works([prompt], sampling, response_id)
        return _Job(
            value=_response(
                response_id,
                model,
                works[0].max_tokens if max_tokens is None else max_tokens,
                body,
                background,
            ),
            message_id=f"msg_{new_id()}",
            generations=self._service.start(works),
            prompt_tokens=len(prompt.ids),
        )

    def _prompt_text(self, body: Body) -> str:
        given = body.get("input")
        messages: list[Any] = (
            given if isinstance(given, list) else [{"role": "user", "content": required(body, "input", str)}]
        )
        before = self._stored.get(str(body.get("previous_response_id")))
        if before is not None:
            said = "".join(part["text"] for item in before["output"] for part in item["content"])
            messages = [{"role": "assistant", "content": said}, *messages]
        if body.get("instructions"):
            messages = [{"role": "system", "content": str(body["instructions"])}, *messages]
        return chat_text(messages)

    async def _complete(self, job: _Job) -> Body:
        try:
            texts = [delta async for delta in self._service.deltas(job.generations[0])]
        except (EngineDead, StreamFailed) as error:
            job.value["status"] = "failed"
            raise ApiError(500, str(error), "InternalServerError") from None
        finally:
            self._service.stop(job.generations)
        reason = texts[-1].finish_reason or "stop"
        _finish(job, "".join(delta.text for delta in texts), reason)
        return job.value

    async def _events(self, job: _Job) -> AsyncIterator[bytes]:
        number = 0

        def event(kind: str, **fields: Any) -> bytes:
            nonlocal number
            value = fields | {"sequence_number": number, "type": kind}
            number += 1
            return encode(f"event: {kind}\ndata: {dumps(value)}\n\n")

        place = {"item_id": job.message_id, "output_index": 0}
        pieces = []
        reason = "stop"
        yield event("response.created", response=job.value)
        yield event("response.in_progress", response=job.value)
        yield event("response.output_item.added", item=_item(job, None, "in_progress"), output_index=0)
        yield event("response.content_part.added", content_index=0, part=_part("", []), **place)
        try:
            async for delta in self._service.deltas(job.generations[0]):
                pieces.append(delta.text)
                reason = delta.finish_reason or reason
                yield event(
                    "response.output_text.delta", content_index=0, delta=delta.text, logprobs=[], **place
                )
        except (EngineDead, StreamFailed) as error:
            job.value["status"] = "failed"
            yield event("error", code="500", message=str(error), param=None)
            return
        text = "".join(pieces)
        yield event("response.output_text.done", content_index=0, logprobs=[], text=text, **place)
        yield event("response.content_part.done", content_index=0, part=_part(text, None), **place)
        yield event("response.output_item.done", item=_item(job, text, "completed"), output_index=0)
        _finish(job, text, reason)
        yield event("response.completed", response=job.value)


def _response(response_id: str, model: str, max_tokens: int, body: Body, background: bool) -> Body:
    return {
        "id": response_id,
        "created_at": now(),
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata"),
        "model": model,
        "object": "response",
        "output": [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "none",
        "tools": [],
        "top_p": 1.0,
        "background": background,
        "max_output_tokens": max_tokens,
        "max_tool_calls": None,
        "previous_response_id": body.get("previous_response_id"),
        "prompt": None,
        "reasoning": None,
        "service_tier": "auto",
        "status": "in_progress",
        "text": None,
        "top_logprobs": None,
        "truncation": "disabled",
        "usage": None,
        "user": body.get("user"),
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "input_messages": None,
        "output_messages": None,
    }


def _finish(job: _Job, text: str, reason: str) -> None:
    written = job.generations[0].job.generated
    job.value["output"] = [_item(job, text, "completed")]
    job.value["status"] = (
        "incomplete" if reason == "length" else "cancelled" if reason == "abort" else "completed"
    )
    job.value["incomplete_details"] = {"reason": "max_output_tokens"} if reason == "length" else None
    job.value["usage"] = {
        "input_tokens": job.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": job.generations[0].job.cached,
            "cache_write_tokens": 0,
            "input_tokens_per_turn": [],
            "cached_tokens_per_turn": [],
        },
        "output_tokens": written,
        "output_tokens_details": {
            "reasoning_tokens": 0,
            "tool_output_tokens": 0,
            "output_tokens_per_turn": [],
            "tool_output_tokens_per_turn": [],
        },
        "total_tokens": job.prompt_tokens + written,
    }


def _item(job: _Job, text: str | None, status: str) -> Body:
    content = [] if text is None else [_part(text, None)]
    return {
        "id": job.message_id,
        "content": content,
        "role": "assistant",
        "status": status,
        "type": "message",
        "phase": None,
    }


def _part(text: str, logprobs: list[Any] | None) -> Body:
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": logprobs}
