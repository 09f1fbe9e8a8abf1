"""Where an instance listens, taken apart once into the pieces that requests are made of."""

from urllib.parse import urlsplit

from supervisord_cp.model.base import InstanceId, Value


class Endpoint(Value, frozen=True, kw_only=True):
    """An address, and the lines of heads that are the same for every request to it."""

    host: str
    port: int
    tls: bool = False
    prefix: bytes = b""
    """Put before the path of every request."""
    host_line: bytes = b""
    instance_line: bytes = b""
    """Tells the client who answered."""


def endpoint_of(url: str, instance: InstanceId) -> Endpoint:
    """The parts of `http://host:port/prefix`.

    Raises:
        ValueError: it is no such address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no address of an engine")
    tls = parts.scheme == "https"
    return Endpoint(
        host=parts.hostname,
        port=parts.port or (443 if tls else 80),
        tls=tls,
        prefix=parts.path.rstrip("/").encode(),
        host_line=f"host: {parts.netloc.rpartition('@')[2]}\r\n".encode(),
        instance_line=f"x-supervisord-cp-instance: {instance}\r\n".encode("latin-1"),
    )
