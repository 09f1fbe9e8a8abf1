"""The endpoints that neither chat nor complete: models, tokens, embeddings, speech, health."""

import hashlib
from typing import Any, Final

from supervisord_cp.engines.fake.bodies import (
    ApiError,
    Body,
    bad_request,
    json_reply,
    optional,
    read_json,
    required,
)
from supervisord_cp.engines.fake.connection import Answer, Reply
from supervisord_cp.engines.fake.generate import Service, new_id, now
from supervisord_cp.engines.fake.http1 import Request
from supervisord_cp.engines.fake.metrics import CONTENT_TYPE, MetricsPage
from supervisord_cp.engines.fake.multipart import parse_form
from supervisord_cp.engines.fake.prompts import Prompt, chat_text, read_prompts
from supervisord_cp.engines.fake.sampling import Sampling
from supervisord_cp.engines.fake.text import detokenize, token_bytes
from supervisord_cp.engines.fake.websocket import EchoSocket

_DIMENSIONS: Final = 16
_BYTES_PER_SECOND: Final = 32_000
"""Of 16 kHz PCM16: how long an upload is taken to last."""


class Endpoints:
    """All of them."""

    def __init__(self, service: Service, page: MetricsPage) -> None:
        self._service = service
        self._page = page
        self.in_flight = 0
        """Requests at endpoints that do work, for `/load`."""

    async def health(self, request: Request) -> Reply:
        return Reply(status=503 if self._service.engine.dead else 200)

    async def ping(self, request: Request) -> Reply:
        return await self.health(request)

    async def version(self, request: Request) -> Reply:
        return json_reply({"version": self._service.version})

    async def load(self, request: Request) -> Reply:
        return json_reply({"server_load": self.in_flight if self._service.options.load_tracking else 0})

    async def metrics(self, request: Request) -> Reply:
        engine = self._service.engine
        figures = engine.telemetry.figures(engine.scheduler, engine.sleep_level)
        return Reply(body=self._page.render(figures).encode(), content_type=CONTENT_TYPE)

    async def models(self, request: Request) -> Reply:
        options = self._service.options
        cards = [self._card(name, options.model, None) for name in options.served_names]
        cards += [
            self._card(name, path, options.served_names[0]) for name, path in self._service.adapters.items()
        ]
        return json_reply({"object": "list", "data": cards})

    async def tokenize(self, request: Request) -> Reply:
        body = read_json(request)
        self._service.model(body)
        messages = optional(body, "messages", list, None)
        text = required(body, "prompt", str) if messages is None else chat_text(messages)
        tokens = Prompt.of(text).ids
        shown = [token_bytes(token).decode(errors="replace") for token in tokens]
        return json_reply(
            {
                "count": len(tokens),
                "max_model_len": self._service.options.max_model_len,
                "tokens": tokens,
                "token_strs": shown if body.get("return_token_strs") else None,
            }
        )

    async def detokenize(self, request: Request) -> Reply:
        body = read_json(request)
        self._service.model(body)
        tokens = required(body, "tokens", list)
        if not all(type(token) is int and token >= 0 for token in tokens):
            raise bad_request("Each token must be a non-negative integer.", "tokens")
        return json_reply({"prompt": detokenize(tokens)})

    async def embeddings(self, request: Request) -> Reply:
        self._service.refuse()
        body = read_json(request)
        model = self._service.model(body)
        prompts = read_prompts(required(body, "input", object))
        works = self._service.works(prompts, Sampling(max_tokens=1), f"embd-{new_id()}")
        await self._service.results(works)
        data = [
            {"index": index, "object": "embedding", "embedding": _embedding(prompt.text)}
            for index, prompt in enumerate(prompts)
        ]
        total = sum(len(prompt.ids) for prompt in prompts)
        usage = {
            "prompt_tokens": total,
            "total_tokens": total,
            "completion_tokens": 0,
            "prompt_tokens_details": None,
        }
        return json_reply(
            {
                "id": f"embd-{new_id()}",
                "object": "list",
                "created": now(),
                "model": model,
                "data": data,
                "usage": usage,
            }
        )

    async def transcribe(self, request: Request) -> Reply:
        self._service.refuse()
        form = parse_form(request.headers.get("content-type", ""), request.body)
        if "file" not in form:
            raise ApiError(400, "1 validation error:\n  Field required: file", "Bad Request", "body.file")
        self._service.model({"model": form["model"].decode(errors="replace")} if "model" in form else {})
        audio = form["file"]
        digest = hashlib.sha256(audio).hexdigest()
        text = f"{len(audio)} bytes with digest {digest[:16]}"
        await self._service.results(
            self._service.works([Prompt.of(text)], Sampling(max_tokens=8), f"trsc-{new_id()}")
        )
        if form.get("response_format") == b"text":
            return Reply(body=f"{text}\n".encode(), content_type="text/plain; charset=utf-8")
        seconds = -(-len(audio) // _BYTES_PER_SECOND)
        return json_reply({"text": text, "usage": {"type": "duration", "seconds": seconds}})

    async def realtime(self, request: Request) -> Answer:
        if not request.wants_websocket:
            raise ApiError(404, "Not Found", "")
        return EchoSocket(request)

    def _card(self, name: str, root: str, parent: str | None) -> Body:
        permission: dict[str, Any] = {
            "id": f"modelperm-{new_id()}",
            "object": "model_permission",
            "created": now(),
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        length = self._service.options.max_model_len if parent is None else None
        return {
            "id": name,
            "object": "model",
            "created": now(),
            "owned_by": "vllm",
            "root": root,
            "parent": parent,
            "max_model_len": length,
            "permission": [permission],
        }


def _embedding(text: str) -> list[float]:
    """A vector of unit cube numbers that depends on the text alone."""
    digest = hashlib.sha256(text.encode(errors="replace")).digest()
    return [(byte - 128) / 128 for byte in digest[:_DIMENSIONS]]
