"""What a deployment cannot set: told when the file is read, refused when an engine is started."""

import pytest

from supervisord_cp.config.owned import (
    OWNED_FLAGS,
    OWNED_VARIABLES,
    is_flag,
    why_owned_flag,
    why_owned_variable,
)
from supervisord_cp.engines import environment, vllm


def test_the_file_and_the_engines_refuse_the_same() -> None:
    assert OWNED_FLAGS.keys() == vllm.OWNED_FLAGS.keys()
    assert OWNED_VARIABLES.keys() == set(environment.OWNED)


@pytest.mark.parametrize(
    "flag", ["port", "api_key", "served-model-name", "ssl_keyfile", "config", "host.x", "por"]
)
def test_owned_flags(flag: str) -> None:
    assert why_owned_flag(flag)


@pytest.mark.parametrize("flag", ["max-model-len", "device", "hf-config-path", "ports", "x"])
def test_flags_of_the_user(flag: str) -> None:
    assert why_owned_flag(flag) == ""


def test_owned_variables() -> None:
    assert why_owned_variable("CUDA_VISIBLE_DEVICES")
    assert why_owned_variable("SUPERVISORD_CP_TOKEN")
    assert why_owned_variable("VLLM_LOGGING_LEVEL") == ""


@pytest.mark.parametrize("name", ["max-model-len", "kv_transfer_config.kv_role", "x.y+", "1"])
def test_flags(name: str) -> None:
    assert is_flag(name)


@pytest.mark.parametrize("name", ["", "--x", "a b", "a=b", "x.", ".x", "x++", "é"])
def test_no_flags(name: str) -> None:
    assert not is_flag(name)
