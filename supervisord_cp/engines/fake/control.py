"""vLLM's control routes, and the fake's own."""

import json
from typing import Any, Final

from supervisord_cp.engines.fake.bodies import ApiError, json_reply, read_json
from supervisord_cp.engines.fake.connection import Reply
from supervisord_cp.engines.fake.faults import Faults
from supervisord_cp.engines.fake.generate import Service
from supervisord_cp.engines.fake.http1 import Request
from supervisord_cp.engines.fake.knobs import KNOBS, KnobError

_MODES: Final = ("abort", "wait", "keep")
_LORA_DISABLED: Final = (
    "Call to add_lora method failed: Worker failed with error 'LoRA is not enabled. Use --enable-lora to "
    "enable LoRA.', please check the stack trace above for the root cause"
)


class Control:
    """Routes that act on the engine as a whole."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def sleep(self, request: Request) -> Reply:
        level = request.query.get("level", "1")
        if level not in ("0", "1", "2"):
            raise ApiError(
                400, "1 validation error:\n  level must be 0, 1 or 2", "Bad Request", "query.level"
            )
        self._service.engine.pause(_mode(request))
        self._service.engine.sleep(int(level))
        return json_reply({"status": "sleeping", "level": int(level)})

    async def wake_up(self, request: Request) -> Reply:
        tags = [request.query["tags"]] if "tags" in request.query else None
        awake = self._service.engine.wake_up(tags)
        return json_reply({"status": "awake" if awake else "sleeping", "tags": tags})

    async def is_sleeping(self, request: Request) -> Reply:
        engine = self._service.engine
        return json_reply({"is_sleeping": engine.paused or engine.sleep_level is not None})

    async def pause(self, request: Request) -> Reply:
        self._service.engine.pause(_mode(request))
        return json_reply({"status": "paused"})

    async def resume(self, request: Request) -> Reply:
        self._service.engine.resume()
        return json_reply({"status": "resumed"})

    async def is_paused(self, request: Request) -> Reply:
        return json_reply({"is_paused": self._service.engine.paused})

    async def reset_prefix_cache(self, request: Request) -> Reply:
        self._service.engine.scheduler.cache.clear()
        return json_reply({"success": True})

    async def abort_requests(self, request: Request) -> Reply:
        ids = _object(request).get("request_ids")
        chosen = frozenset(map(str, ids)) if isinstance(ids, list) and ids else None
        return json_reply({"status": "aborted", "aborted": self._service.engine.abort(chosen)})

    async def collective_rpc(self, request: Request) -> Reply:
        method = _object(request).get("method")
        if method is None:
            raise ApiError(400, "Missing 'method' in request body", "Bad Request")
        if not str(method).isidentifier():
            raise ApiError(500, f"Call to collective_rpc method failed: {method!r}", "InternalServerError")
        if method == "reload_weights":
            self._service.engine.reload_weights()
        return json_reply({"results": [None] * self._service.options.workers})

    async def server_info(self, request: Request) -> Reply:
        return json_reply({"vllm_config": self._service.options.non_default})

    async def load_adapter(self, request: Request) -> Reply:
        body = read_json(request)
        name, path = str(body.get("lora_name") or ""), str(body.get("lora_path") or "")
        if not name or not path:
            raise _lora_error(400, "Both 'lora_name' and 'lora_path' must be provided.")
        if name in self._service.options.served_names:
            raise _lora_error(400, f"The lora adapter '{name}' conflicts with a served base model.")
        if name in self._service.adapters and not body.get("load_inplace"):
            hint = "If you want to load the adapter in place, set 'load_inplace' to True."
            raise _lora_error(400, f"The lora adapter '{name}' has already been loaded. {hint}")
        if not self._service.options.enable_lora:
            raise ApiError(500, _LORA_DISABLED, "InternalServerError")
        self._service.adapters[name] = path
        return Reply(body=f"Success: LoRA adapter '{name}' added successfully.".encode())

    async def unload_adapter(self, request: Request) -> Reply:
        name = str(read_json(request).get("lora_name") or "")
        if not name:
            raise _lora_error(400, "'lora_name' needs to be provided to unload a LoRA adapter.")
        if self._service.adapters.pop(name, None) is None:
            raise ApiError(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        return Reply(body=f"Success: LoRA adapter '{name}' removed successfully.".encode())

    async def nothing(self, request: Request) -> Reply:
        """Routes that answer with an empty object."""
        return json_reply({})


class FakeControl:
    """`/fake/…`: what vLLM does not have."""

    def __init__(self, service: Service, faults: Faults) -> None:
        self._service = service
        self._faults = faults

    async def stats(self, request: Request) -> Reply:
        engine = self._service.engine
        telemetry, scheduler = engine.telemetry, engine.scheduler
        return json_reply(
            {
                "seen": telemetry.seen,
                "running": len(scheduler.running),
                "waiting": len(scheduler.waiting),
                "max_running": telemetry.max_running,
                "finished": telemetry.finished["stop"] + telemetry.finished["length"],
                "aborted": telemetry.finished["abort"],
                "failed": telemetry.finished["error"],
                "rejected": telemetry.rejected.total(),
                "prompt_tokens": telemetry.prompt_tokens,
                "generation_tokens": telemetry.generation_tokens,
                "preemptions": scheduler.preemptions,
                "kv_cache_usage": scheduler.usage,
            }
        )

    async def show(self, request: Request) -> Reply:
        return json_reply({name: getattr(self._faults.knobs, name) for name in KNOBS})

    async def change(self, request: Request) -> Reply:
        try:
            self._faults.change(_object(request))
        except KnobError as error:
            raise ApiError(400, str(error), "Bad Request") from None
        self._service.engine.touch()
        return await self.show(request)


def _mode(request: Request) -> str:
    mode = request.query.get("mode", "abort")
    if mode not in _MODES:
        raise ApiError(
            400,
            f"1 validation error:\n  mode must be one of {', '.join(_MODES)}",
            "Bad Request",
            "query.mode",
        )
    return mode


def _object(request: Request) -> dict[str, Any]:
    """A JSON object, whatever the content type says."""
    try:
        value = json.loads(request.body)
    except ValueError:
        raise ApiError(400, "Invalid JSON format", "Bad Request") from None
    if not isinstance(value, dict):
        raise ApiError(400, "Request body must be a JSON object", "Bad Request")
    return value


def _lora_error(status: int, message: str) -> ApiError:
    return ApiError(status, message, "InvalidUserInput")
