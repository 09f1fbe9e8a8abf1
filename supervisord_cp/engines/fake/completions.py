"""`/v1/chat/completions` and `/v1/completions`."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from supervisord_cp.engines.fake.bodies import Body, bad_request, json_reply, optional, read_json, required
from supervisord_cp.engines.fake.connection import Answer, EventStream
from supervisord_cp.engines.fake.engine import EngineDead, Generation
from supervisord_cp.engines.fake.faults import StreamFailed
from supervisord_cp.engines.fake.generate import Service, now, request_id
from supervisord_cp.engines.fake.http1 import Request
from supervisord_cp.engines.fake.prompts import Prompt, chat_text, read_prompts
from supervisord_cp.engines.fake.sampling import read_sampling
from supervisord_cp.engines.fake.shapes import Call, ChatShape, Shape, StreamOptions, TextShape, error_frame

DONE: Final = b"data: [DONE]\n\n"
_COMPLETION_TOKENS: Final = 16
"""`max_tokens` of `/v1/completions` when the client names none."""


class Completions:
    """Both endpoints; they differ in the shape of what they read and write."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def chat(self, request: Request) -> Answer:
        self._service.refuse()
        body = read_json(request)
        messages = required(body, "messages", list)
        model = self._service.model(body)
        if not messages:
            raise bad_request(
                "Cannot apply chat template to an empty conversation. Provide at least one message."
            )
        wanted = optional(body, "max_completion_tokens", int, optional(body, "max_tokens", int, None))
        call = self._call(
            request,
            body,
            f"chatcmpl-{request_id(request, body)}",
            model,
            [Prompt.of(chat_text(messages))],
            wanted,
        )
        return await self._answer(call, ChatShape(self._service, call))

    async def complete(self, request: Request) -> Answer:
        self._service.refuse()
        body = read_json(request)
        model = self._service.model(body)
        prompts = read_prompts(body.get("prompt"))
        wanted = optional(body, "max_tokens", int, _COMPLETION_TOKENS)
        call = self._call(request, body, f"cmpl-{request_id(request, body)}", model, prompts, wanted)
        return await self._answer(call, TextShape(self._service, call))

    def _call(
        self,
        request: Request,
        body: Body,
        call_id: str,
        model: str,
        prompts: Sequence[Prompt],
        max_tokens: int | None,
    ) -> Call:
        sampling = read_sampling(request, body, self._service.options, max_tokens)
        streaming = optional(body, "stream", bool, False)
        options = optional(body, "stream_options", dict, {})
        if options and not streaming:
            raise bad_request("Stream options can only be defined when `stream=True`.", "stream_options")
        return Call(
            id=call_id,
            model=model,
            prompts=tuple(prompts),
            works=tuple(self._service.works(prompts, sampling, call_id)),
            choices=sampling.n,
            created=now(),
            streaming=streaming,
            show=StreamOptions(
                usage=bool(options.get("include_usage")) or self._service.options.force_usage,
                continuous=bool(options.get("continuous_usage_stats")),
                token_ids=optional(body, "return_token_ids", bool, False),
            ),
            echo=optional(body, "echo", bool, False),
        )

    async def _answer(self, call: Call, shape: Shape) -> Answer:
        if not call.streaming:
            results = await self._service.results(call.works)
            return json_reply(shape.whole(results))
        generations = self._service.start(call.works)
        return EventStream(
            events=self._stream(call, shape, generations), close=lambda: self._service.stop(generations)
        )

    async def _stream(self, call: Call, shape: Shape, generations: list[Generation]) -> AsyncIterator[bytes]:
        done = 0
        opening = shape.opening()
        try:
            async for index, delta in self._service.merged(generations):
                for event in opening:  # with the first token, not before: a first byte is a first token
                    yield event
                done += len(delta.token_ids)
                yield shape.chunk(index, delta, generations[index].job.generated)
            if call.show.usage:
                yield shape.closing(self._service.usage(call.prompts, done))
        except (EngineDead, StreamFailed) as error:
            yield error_frame(str(error))
        yield DONE
