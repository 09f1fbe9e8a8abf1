"""Sizes, listeners, port ranges and addresses as people write them."""

import pytest

from supervisord_cp.config import spelling
from supervisord_cp.config.schema import Listen
from supervisord_cp.config.spelling import Mismatch


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("10B", 10),
        ("64MiB", 64 * 2**20),
        ("64 mib", 64 * 2**20),
        ("1.5GiB", 3 * 2**29),
        ("2kB", 2000),
        ("1TB", 10**12),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert spelling.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1e3", "64 megabytes", "64MiB!", "\uff11MiB"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(Mismatch, match="must be a size"):
        spelling.parse_size(text)


@pytest.mark.parametrize("size", [0, 1, 1000, 1024, 1536, 64 * 2**20, 2**30, 2**40 + 2**30, 2**53 + 1])
def test_a_size_is_read_back_as_it_was(size: int) -> None:
    assert spelling.parse_size(str(spelling.format_size(size))) == size


def test_a_size_is_written_with_its_largest_exact_unit() -> None:
    assert [spelling.format_size(size) for size in (0, 1000, 1536, 2**30)] == [0, 1000, 1536, "1GiB"]
    assert spelling.format_size(3 * 2**10) == "3KiB"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:9000", "127.0.0.1", 9000),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("localhost:65535", "localhost", 65535),
        ("gpu-a.example:80", "gpu-a.example", 80),
        ("[::1]:9000", "::1", 9000),
        ("[fe80::1%eth0]:9000", "fe80::1%eth0", 9000),
    ],
)
def test_listeners(text: str, host: str, port: int) -> None:
    listen = spelling.parse_listen(text)
    assert listen == Listen(host=host, port=port)
    assert str(listen) == text


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", 'must be HOST:PORT, not ""', 'such as "127.0.0.1:9000"'),
        ("9000", 'must be HOST:PORT, not "9000"', 'such as "127.0.0.1:9000"'),
        ("gpu-a", 'must be HOST:PORT, not "gpu-a"', 'such as "gpu-a:9000"'),
        (":9000", 'must be HOST:PORT, not ":9000"', 'for every address of this host: "0.0.0.0:9000"'),
        ("::1:9000", 'must be HOST:PORT, not "::1:9000"', 'put an IPv6 address in brackets: "[::1]:9000"'),
        ("h:65536", 'must have a port from 0 to 65535, not "65536"', ""),
        ("h:http", 'must have a port from 0 to 65535, not "http"', ""),
        ("http://h:1", 'must be HOST:PORT, not "http://h:1"', "leave http:// out"),
        ("a b:1", 'must be HOST:PORT, but "a b" is no host', ""),
        ("[::1:9000", 'must be HOST:PORT, but "[::1" is no host', ""),
        ("[zz]:1", 'must be HOST:PORT, but "zz" is no host', ""),
    ],
)
def test_no_listeners(text: str, message: str, hint: str) -> None:
    with pytest.raises(Mismatch) as caught:
        spelling.parse_listen(text)
    assert (str(caught.value), caught.value.hint) == (message, hint)


@pytest.mark.parametrize(
    ("text", "ports"), [("8000-8099", (8000, 8099)), ("8000 - 8000", (8000, 8000)), ("8000", (8000, 8000))]
)
def test_port_ranges(text: str, ports: tuple[int, int]) -> None:
    assert spelling.parse_ports(text) == ports
    assert spelling.parse_ports(spelling.format_ports(ports)) == ports


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8099-8000", "must go upwards, not from 8099 to 8000"),
        ("0-10", 'must have a port from 1 to 65535, not "0"'),
        ("1-70000", 'must have a port from 1 to 65535, not "70000"'),
        ("1,2", 'must be a range of ports, not "1,2"'),
        ("-5", 'must be a range of ports, not "-5"'),
    ],
)
def test_no_port_ranges(text: str, message: str) -> None:
    with pytest.raises(Mismatch) as caught:
        spelling.parse_ports(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "host"), [("10.0.0.1", "10.0.0.1"), ("gpu-a", "gpu-a"), ("::1", "::1"), ("[::1]", "::1")]
)
def test_hosts(text: str, host: str) -> None:
    assert spelling.parse_host(text) == host


@pytest.mark.parametrize("text", ["", "*", "0.0.0.0", "::", "[::]", "10.0.0.1:8000", "http://h", "a b"])
def test_no_hosts(text: str) -> None:
    with pytest.raises(Mismatch):
        spelling.parse_host(text)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("http://127.0.0.1:9001", "http://127.0.0.1:9001"),
        ("https://h/", "https://h"),
        ("http://[::1]:9001", "http://[::1]:9001"),
    ],
)
def test_origins(text: str, origin: str) -> None:
    assert spelling.parse_origin(text) == origin


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "must begin with http:// or https://", ""),
        ("h:8000", "must begin with http:// or https://", 'write "http://h:8000"'),
        ("ftp://h", "must begin with http:// or https://", ""),
        ("http://h:8000/v1", 'must end after the port, not with "/v1"', 'write "http://h:8000"'),
        ("http://h:8000?a=b", 'must end after the port, not with "?a=b"', 'write "http://h:8000"'),
        ("http://:8000", "must be a web address, such as http://127.0.0.1:9001", ""),
        ("http://h:0", "must be a web address, such as http://127.0.0.1:9001", ""),
        ("http://h:99999", "must be a web address: port out of range 0-65535", ""),
        ("http://h o", "must be a web address, such as http://127.0.0.1:9001", ""),
        ("http://[::1", "must be a web address: invalid ipv6 url", ""),
        (
            "http://me:pass@h",
            "must not have a user or password",
            "keys and tokens come from files of their own",
        ),
    ],
)
def test_no_origins(text: str, message: str, hint: str) -> None:
    with pytest.raises(Mismatch) as caught:
        spelling.parse_origin(text)
    assert (str(caught.value), caught.value.hint) == (message, hint)


def test_other_addresses_may_have_a_path_and_a_password() -> None:
    assert spelling.parse_url("https://me:x@h/prometheus/") == "https://me:x@h/prometheus"
