"""What a client may cost."""

from supervisord_cp.model.base import Value


class Limits(Value, frozen=True, kw_only=True):
    """Bounds of one listener, in bytes, seconds and connections."""

    max_body: int
    header_timeout_s: float
    idle_timeout_s: float
    max_connections: int
