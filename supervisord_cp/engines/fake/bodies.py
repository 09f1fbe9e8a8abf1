"""JSON bodies: reading a request's, with vLLM's errors for what is wrong, and writing a response's."""

import json
from collections.abc import Mapping
from typing import Any, Final

from supervisord_cp.engines.fake.connection import Reply
from supervisord_cp.engines.fake.http1 import Request

JSON: Final = "application/json"
Body = dict[str, Any]

_NAMES: Final = {
    int: "integer",
    str: "string",
    bool: "boolean",
    float: "number",
    list: "list",
    dict: "dictionary",
}


class ApiError(Exception):
    """An error that the client sees."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param


def dumps(value: object) -> str:
    """Compact JSON with characters as they are, as pydantic writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def encode(text: str) -> bytes:
    """UTF-8; lone surrogates, which JSON can smuggle in, become `?`."""
    return text.encode(errors="replace")


def json_reply(value: object, status: int = 200) -> Reply:
    """A JSON response."""
    return Reply(status=status, body=encode(dumps(value)), content_type=JSON)


def error_value(error: ApiError) -> Body:
    """An error as OpenAI's clients expect it."""
    return {
        "error": {"message": error.message, "type": error.kind, "param": error.param, "code": error.status}
    }


def bad_request(message: str, param: str | None = None, value: object = None) -> ApiError:
    """A request that can be read but not be served."""
    detail = (
        "" if param is None else f" (parameter={param}" + ("" if value is None else f", value={value}") + ")"
    )
    return ApiError(400, message + detail, "BadRequestError", param)


def invalid(kind: str, place: str, message: str, given: object, extra: str = "") -> ApiError:
    """A body that does not have the right shape."""
    detail = f"{{'type': '{kind}', 'loc': '{place}', 'msg': '{message}', 'input': '{_shown(given)}'{extra}}}"
    return ApiError(400, f"1 validation error:\n  {detail}", "Bad Request", place)


def read_json(request: Request) -> Body:
    """The JSON object of a request's body.

    Raises:
        ApiError: it is not one.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        text = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        raise ApiError(400, text, "Bad Request")
    if not request.body:
        raise invalid("missing", "body", "Field required", None)
    try:
        value = json.loads(request.body)
    except json.JSONDecodeError as error:
        extra = f", 'ctx': {{'error': '{error.msg}'}}"
        raise invalid("json_invalid", f"body.{error.pos}", "JSON decode error", {}, extra) from None
    except ValueError:
        raise ApiError(400, "There was an error parsing the body", "Bad Request") from None
    if not isinstance(value, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        raise invalid("model_attributes_type", "body", message, value)
    return value


def required(body: Body, name: str, kind: type) -> Any:
    """A field that must be there."""
    if body.get(name) is None:
        raise invalid("missing", f"body.{name}", "Field required", body)
    return optional(body, name, kind, None)


def optional(body: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    """A field, or the default when it is absent or null."""
    value = body.get(name)
    if value is None:
        return default
    if kind is float and isinstance(value, int):
        return float(value)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    what = _NAMES[kind]
    tail = f", unable to parse string as an {what}" if kind is int and isinstance(value, str) else ""
    code = "int_parsing" if tail else f"{kind.__name__}_type"
    raise invalid(code, f"body.{name}", f"Input should be a valid {what}{tail}", value)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return f"<dict of {len(value)} items>"
    if isinstance(value, list):
        return f"<list of {len(value)} items>"
    return str(value)[:200]
