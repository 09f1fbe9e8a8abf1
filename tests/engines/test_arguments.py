"""Tables of flags to command lines."""

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.engines.arguments import by_flag, command_line
from supervisord_cp.engines.base import LaunchRefused
from supervisord_cp.model.launch import ArgValue


@pytest.mark.parametrize(
    ("args", "argv"),
    [
        ({}, []),
        ({"max_model_len": 8192}, ["--max-model-len", "8192"]),
        ({"gpu-memory-utilization": 0.9}, ["--gpu-memory-utilization", "0.9"]),
        ({"enforce-eager": True}, ["--enforce-eager"]),
        ({"enable-prefix-caching": False}, ["--no-enable-prefix-caching"]),
        ({"disable-log-stats": False}, []),
        ({"disable-log-stats": True}, ["--disable-log-stats"]),
        ({"lora-modules": ["a=/a", "b=/b"]}, ["--lora-modules", "a=/a", "b=/b"]),
        ({"cudagraph-capture-sizes": [1, -2]}, ["--cudagraph-capture-sizes", "1", "-2"]),
        ({"middleware": []}, []),
        ({"seed": -1}, ["--seed=-1"]),
        ({"chat-template": "--not-a-flag"}, ["--chat-template=--not-a-flag"]),
        ({"chat-template": ""}, ["--chat-template", ""]),
        ({"speculative-config": '{"model": "x"}'}, ["--speculative-config", '{"model": "x"}']),
        ({"kv_transfer_config.kv_role": "kv_both"}, ["--kv-transfer-config.kv_role", "kv_both"]),
        ({"b": 1, "a": 2}, ["--b", "1", "--a", "2"]),
    ],
)
def test_spelling(args: dict[str, ArgValue], argv: list[str]) -> None:
    assert command_line(by_flag(args), frozenset({"disable-log-stats"})) == argv


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({"--max-model-len": 1}, "without leading dashes"),
        ({"": 1}, "is no flag"),
        ({"max len": 1}, "is no flag"),
        ({"a=b": 1}, "is no flag"),
        ({"max_model_len": 1, "max-model-len": 2}, "set twice"),
        ({"lora-modules": ["a=/a", "--api-key"]}, "begins with a dash"),
        ({"lora-modules": [""]}, "is empty"),
        ({"dtype": "a\0b"}, "NUL"),
    ],
)
def test_refused(args: dict[str, ArgValue], text: str) -> None:
    with pytest.raises(LaunchRefused, match=text):
        command_line(by_flag(args))


scalars = (
    st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"))
)


@given(scalars)
def test_a_value_is_one_value_whatever_it_is(value: float | str) -> None:
    """No value becomes a flag of its own: a parser with other flags reads it back as it was."""
    parser = argparse.ArgumentParser(allow_abbrev=True)
    for flag in ("--value", "--api-key", "--host", "-O"):
        parser.add_argument(flag)
    read = parser.parse_args(command_line({"value": value}))
    assert (read.value, read.api_key, read.host) == (str(value), None, None)


@given(st.lists(st.text(), max_size=3))
def test_a_list_is_its_values_or_refused(listed: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--values", nargs="+", default=[])
    parser.add_argument("--api-key")
    try:
        argv = command_line({"values": list(listed)})
    except LaunchRefused:
        assert any(not text or text.startswith("-") or "\0" in text for text in listed)
    else:
        assert parser.parse_args(argv) == argparse.Namespace(values=listed, api_key=None)
