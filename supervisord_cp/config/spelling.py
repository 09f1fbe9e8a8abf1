"""Values that have a spelling of their own in the file: sizes, listeners, port ranges, addresses."""

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from supervisord_cp.config.schema import Listen

_UNITS: Final = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?i?B)?", re.IGNORECASE | re.ASCII)
_PORTS: Final = re.compile(r"(\d{1,5})(?: ?- ?(\d{1,5}))?", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_HIGHEST_PORT: Final = 65535


class Mismatch(Exception):
    """A value that its key cannot have. The text goes on after the name of the key: "must be …"."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def parse_size(text: str) -> int:
    """Bytes of `64MiB`, `1.5GB`, `4096`.

    Raises:
        Mismatch: it is none of these.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise Mismatch(f'must be a size, not "{text}"', 'write bytes, or a unit: "64MiB"')
    number, unit = match.groups(default="")
    return (
        round(float(number) * _UNITS[unit.lower()]) if "." in number else int(number) * _UNITS[unit.lower()]
    )


def format_size(size: int) -> int | str:
    """The shortest exact spelling: `"64MiB"`, or the plain number of bytes."""
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit}{name}"
    return size


def parse_listen(text: str) -> Listen:
    """The listener of `HOST:PORT`; port 0 is any free one.

    Raises:
        Mismatch: it is none.
    """
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if hint := _listen_hint(text, host, port if colon else ""):
        raise Mismatch(f'must be HOST:PORT, not "{text}"', hint)
    if not (_is_ipv6(bare) if bare != host else _HOST.fullmatch(bare)):
        raise Mismatch(f'must be HOST:PORT, but "{bare}" is no host')
    return Listen(host=bare, port=_port(port, lowest=0))


def _listen_hint(text: str, host: str, port: str) -> str:
    """What to write in place of a listener that is not HOST:PORT at all; "" when it is."""
    if "//" in text:
        return f"leave {text.partition('//')[0]}// out"
    if not port or "]" in port:
        return 'such as "127.0.0.1:9000"' if not text or text.isdecimal() else f'such as "{text}:9000"'
    if not host:
        return f'for every address of this host: "0.0.0.0:{port}"'
    return f'put an IPv6 address in brackets: "[{host}]:{port}"' if ":" in host and host[0] != "[" else ""


def parse_host(text: str) -> str:
    """One address or name of a host; an IPv6 address without brackets.

    Raises:
        Mismatch: it is none, or stands for every address.
    """
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        everywhere = host in ("", "*")
        if not everywhere and not _HOST.fullmatch(host):
            name, colon, port = host.rpartition(":")
            hint = f'leave the port out: "{name}"' if colon and port.isdecimal() else ""
            raise Mismatch(f'must be an address of this host, not "{text}"', hint) from None
    if everywhere:
        raise Mismatch(
            f'must be one address, not "{text}"', 'such as "192.168.1.100"; "127.0.0.1" for this host'
        )
    return host


def parse_ports(text: str) -> tuple[int, int]:
    """The first and last port of `8000-8099`, or of a single one.

    Raises:
        Mismatch: it is no range.
    """
    match = _PORTS.fullmatch(text.strip())
    if match is None:
        raise Mismatch(f'must be a range of ports, not "{text}"', 'write "8000-8099"')
    first = _port(match[1])
    last = _port(match[2]) if match[2] else first
    if first > last:
        raise Mismatch(f"must go upwards, not from {first} to {last}", f'write "{last}-{first}"')
    return first, last


def format_ports(ports: tuple[int, int]) -> str:
    """`8000-8099`."""
    return f"{ports[0]}-{ports[1]}"


def parse_url(text: str) -> str:
    """An address with http or https and a host.

    Raises:
        Mismatch: it is none.
    """
    try:
        parts = urlsplit(text)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError as error:
        raise Mismatch(f"must be a web address: {str(error).lower()}") from error
    if parts.scheme not in ("http", "https"):
        plain = text and not re.search(r"[\s@]|://", text)
        raise Mismatch("must begin with http:// or https://", f'write "http://{text}"' if plain else "")
    if not parts.hostname or not port_is_good or re.search(r"\s", text):
        raise Mismatch("must be a web address, such as http://127.0.0.1:9001")
    return text.rstrip("/")


def parse_origin(text: str) -> str:
    """`http://HOST:PORT` and nothing after it.

    Raises:
        Mismatch: there is more, or less.
    """
    url = parse_url(text)
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise Mismatch("must not have a user or password", "keys and tokens come from files of their own")
    base = f"{parts.scheme}://{parts.netloc}"
    if url != base:
        raise Mismatch(f'must end after the port, not with "{url.removeprefix(base)}"', f'write "{base}"')
    return base


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _port(text: str, lowest: int = 1) -> int:
    if not (text.isascii() and text.isdecimal()) or not lowest <= int(text) <= _HIGHEST_PORT:
        raise Mismatch(f'must have a port from {lowest} to {_HIGHEST_PORT}, not "{text}"')
    return int(text)
