"""What the Python API raises besides `UsageError`."""

from supervisord_cp.errors import SupervisordError


class UnknownRequest(SupervisordError):
    """No request of that id, or one that ended so long ago that its result is gone."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"no request {request_id!r} is known")
        self.request_id = request_id


class RequestFailed(SupervisordError):
    """A request has no answer."""

    def __init__(self, request_id: str, reason: str, message: str, status: int = 0) -> None:
        super().__init__(f"request {request_id}: {message}")
        self.request_id = request_id
        self.reason = reason
        """As in the header `x-supervisord-cp-reason`; `engine_error` where the engine answered with an error,
        `invalid_answer` where it answered nonsense, `cancelled`, `stopped`."""
        self.message = message
        self.status = status
        """The HTTP status, 0 without one."""
