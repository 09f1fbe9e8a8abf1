"""What all generating endpoints share: models, limits, and sequences with their faults applied."""

import asyncio
import os
import time
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from supervisord_cp.engines.fake.bodies import ApiError, Body, bad_request, optional
from supervisord_cp.engines.fake.engine import DEAD, Delta, Engine, EngineDead, Generation, QueueFull, Work
from supervisord_cp.engines.fake.faults import Faults, StreamFailed
from supervisord_cp.engines.fake.http1 import Request
from supervisord_cp.engines.fake.options import Options
from supervisord_cp.engines.fake.prompts import Prompt
from supervisord_cp.engines.fake.sampling import Sampling

_ELSEWHERE: Final = "Please try again later or on a different instance."
BUSY: Final = f"The engine is currently busy and cannot accept new requests. {_ELSEWHERE}"
BACKLOG: Final = f"The engine has reached its prefill token backlog limit. {_ELSEWHERE}"


@dataclass(frozen=True, slots=True)
class Result:
    """A whole answer."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    stop_reason: str | None


class Service:
    """The engine as the endpoints see it."""

    def __init__(self, options: Options, engine: Engine, faults: Faults, version: str) -> None:
        self.options: Final = options
        self.engine: Final = engine
        self.faults: Final = faults
        self.version: Final = version
        self.created: Final = int(time.time())
        self.adapters: Final[dict[str, str]] = {}
        """LoRA adapters: name to path."""
        self.fingerprint: Final = f"vllm-{version}-{zlib.crc32(options.model.encode()):08x}"

    def model(self, body: Body) -> str:
        """The model that a request asks for; without one, the first.

        Raises:
            ApiError: 404, it is not served here.
        """
        name: str = optional(body, "model", str, "") or self.options.served_names[0]
        if name in self.options.served_names or name in self.adapters:
            return name
        known = ", ".join(self.options.served_names)
        raise ApiError(
            404, f"The model `{name}` does not exist. Valid aliases: {known}.", "NotFoundError", "model"
        )

    def works(self, prompts: Sequence[Prompt], sampling: Sampling, request_id: str) -> list[Work]:
        """One sequence per prompt and choice, in the order of their indexes.

        Raises:
            ApiError: a prompt leaves no room for an answer.
        """
        works = []
        for prompt in prompts:
            room = self.room(len(prompt.ids))
            wanted = room if sampling.max_tokens is None else min(room, sampling.max_tokens)
            works += [
                Work(
                    prompt=prompt.text,
                    prompt_ids=prompt.ids,
                    max_tokens=wanted,
                    choice=choice,
                    stop=sampling.stop,
                    natural_end=not sampling.ignore_eos,
                    priority=sampling.priority,
                    salt=sampling.salt,
                    request_id=request_id,
                )
                for choice in range(sampling.n)
            ]
        return works

    def room(self, prompt_tokens: int) -> int:
        """How many tokens an answer to such a prompt can have, at least one."""
        limit = self.options.max_model_len
        if prompt_tokens >= limit:
            raise bad_request(
                f"This model's maximum context length is {limit} tokens. However, your prompt contains "
                f"at least {prompt_tokens} input tokens, which exceeds this limit even without any output "
                "tokens. Please reduce the length of the input prompt.",
                "input_tokens",
                prompt_tokens,
            )
        return limit - prompt_tokens

    def start(self, works: Sequence[Work]) -> list[Generation]:
        """Sequences in the engine; `stop` them whatever happens.

        Raises:
            ApiError: the engine is full or dead. None is left in it then.
        """
        generations: list[Generation] = []
        try:
            for work in works:
                generations.append(self._submit(work))  # noqa: PERF401 - those before a failure are kept
        except ApiError:
            self.stop(generations)
            raise
        self.engine.telemetry.observe("request_params_n", len(works))
        return generations

    def stop(self, generations: Sequence[Generation]) -> None:
        """Abort what has not ended."""
        for generation in generations:
            self.engine.close(generation)

    def refuse(self) -> None:
        """Raise the error that the knobs ask for, if they do."""
        status = self.faults.refusal()
        if status is not None:
            kind = "InternalServerError" if status >= 500 else "BadRequestError"
            raise ApiError(status, "Internal server error", kind)

    async def deltas(self, generation: Generation) -> AsyncIterator[Delta]:
        """A sequence's deltas, with the stream faults after each.

        Raises:
            EngineDead, StreamFailed, CutConnection: what the stream ends with instead.
        """
        tokens = 0
        async for delta in generation.deltas():
            yield delta
            tokens += len(delta.token_ids)
            self.faults.after_token(tokens)

    async def merged(self, generations: Sequence[Generation]) -> AsyncIterator[tuple[int, Delta]]:
        """The deltas of several sequences with their indexes, as they come."""
        if len(generations) == 1:
            async for delta in self.deltas(generations[0]):
                yield 0, delta
            return
        queue: asyncio.Queue[tuple[int, Delta] | Exception | None] = asyncio.Queue()

        async def pump(index: int, generation: Generation) -> None:
            try:
                async for delta in self.deltas(generation):
                    queue.put_nowait((index, delta))
                queue.put_nowait(None)
            except Exception as error:
                queue.put_nowait(error)

        tasks = [asyncio.create_task(pump(index, generation)) for index, generation in enumerate(generations)]
        try:
            missing = len(tasks)
            while missing:
                item = await queue.get()
                if item is None:
                    missing -= 1
                elif isinstance(item, Exception):
                    raise item
                else:
                    yield item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def results(self, works: Sequence[Work]) -> list[Result]:
        """Whole answers.

        Raises:
            ApiError: the engine is full or dead, or a fault says so.
        """
        texts: list[list[str]] = [[] for _ in works]
        ids: list[list[int]] = [[] for _ in works]
        ends = [Delta("", ())] * len(works)
        generations = self.start(works)
        try:
            async for index, delta in self.merged(generations):
                texts[index].append(delta.text)
                ids[index] += delta.token_ids
                ends[index] = delta
        except (EngineDead, StreamFailed) as error:
            raise ApiError(500, str(error), "InternalServerError") from None
        finally:
            self.stop(generations)
        return [
            Result("".join(text), tuple(tokens), end.finish_reason or "stop", end.stop_reason)
            for text, tokens, end in zip(texts, ids, ends, strict=True)
        ]

    def usage(self, prompts: Sequence[Prompt], completion: int) -> Body:
        """The usage of a request."""
        prompt = sum(len(item.ids) for item in prompts)
        return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}

    def _submit(self, work: Work) -> Generation:
        try:
            return self.engine.submit(work)
        except QueueFull as error:
            message = BUSY if str(error) == "max_num_queued_reqs" else BACKLOG
            raise ApiError(503, message, "Service Unavailable") from None
        except EngineDead:
            raise ApiError(500, DEAD, "InternalServerError") from None


def request_id(request: Request, body: Body) -> str:
    """The client's id of a request, or a new one."""
    given = request.headers.get("x-request-id") or body.get("request_id")
    return str(given) if given else new_id()


def new_id() -> str:
    """Sixteen random hexadecimal digits."""
    return os.urandom(8).hex()


def now() -> int:
    """Wall-clock seconds."""
    return int(time.time())
