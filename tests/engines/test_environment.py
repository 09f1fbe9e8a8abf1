"""What engines inherit, and what a node lets central decide."""

from pathlib import Path
from typing import Any

import pytest

from supervisord_cp.config.schema import AllowConfig
from supervisord_cp.engines.allow import refusals
from supervisord_cp.engines.environment import base_environment
from supervisord_cp.model.launch import EngineKind
from tests.engines.samples import spec


def test_an_engine_inherits_what_the_node_is_set_up_with() -> None:
    own = {
        "PATH": "/usr/bin",
        "HOME": "/home/vllm",
        "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": "/usr/local/cuda/lib64",
        "HF_HOME": "/models/hub",
        "HF_TOKEN": "hf_x",
        "VLLM_CACHE_ROOT": "/cache",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "OMP_NUM_THREADS": "4",
        "https_proxy": "http://proxy:3128",
    }
    assert base_environment(own) == own


@pytest.mark.parametrize(
    "name",
    [
        "SUPERVISORD_CP_TOKEN",
        "SUPERVISORD_CP_NONCE",
        "PYTHONPATH",
        "PYTHONHOME",
        "VIRTUAL_ENV",
        "NOTIFY_SOCKET",
        "LISTEN_PID",
        "LISTEN_FDS",
        "WATCHDOG_USEC",
        "CREDENTIALS_DIRECTORY",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "SYSTEMD_EXEC_PID",
        "CUDA_VISIBLE_DEVICES",
        "VLLM_API_KEY",
        "VLLM_PORT",
        "VLLM_SERVER_DEV_MODE",
        "SPT_NOENV",
    ],
)
def test_an_engine_does_not_inherit(name: str) -> None:
    assert base_environment({name: "x", "HOME": "/"}) == {"HOME": "/"}


def refused(allow: AllowConfig | None = None, **fields: Any) -> tuple[str, ...]:
    return refusals(spec(**fields), allow or AllowConfig())


def test_what_is_usual_is_allowed() -> None:
    assert refused(env={"HF_HUB_OFFLINE": "1", "VLLM_ATTENTION_BACKEND": "FLASH_ATTN"}) == ()
    assert refused(engine=EngineKind.FAKE, env={"FAKE_VLLM": "{}"}) == ()


@pytest.mark.parametrize(
    ("fields", "executables", "allowed"),
    [
        ({}, ("vllm",), True),
        ({}, ("/opt/vllm/bin/vllm",), False),
        ({}, ("*",), False),  # no patterns: a program is named
        ({"executable": "/opt/vllm/bin/vllm"}, ("/opt/vllm/bin/vllm",), True),
        ({"executable": "/opt/vllm/bin/vllm"}, ("vllm",), False),
        ({"executable": "/opt/vllm/bin/../../../bin/sh"}, ("/opt/vllm/bin/vllm",), False),
        ({"executable": "sh"}, ("vllm",), False),
        ({"engine": EngineKind.FAKE}, (), True),
        ({"engine": EngineKind.FAKE, "executable": "sh"}, (), True),  # it is not used
        ({"engine": EngineKind.COMMAND, "command": ("llama-server",)}, ("llama-server",), True),
        ({"engine": EngineKind.COMMAND, "command": ("sh", "-c", "x")}, ("llama-server",), False),
        ({"engine": EngineKind.COMMAND, "executable": "vllm", "command": ("sh",)}, ("vllm",), False),
        ({"engine": EngineKind.COMMAND}, ("vllm",), False),
    ],
)
def test_executables(fields: dict[str, Any], executables: tuple[str, ...], allowed: bool) -> None:
    found = refused(AllowConfig(executables=executables), **fields)
    assert found == () if allowed else "allow.executables" in found[0]


@pytest.mark.parametrize(
    ("model", "roots", "allowed"),
    [
        ("meta-llama/Llama-3.1-8B", (), True),
        ("meta-llama/Llama-3.1-8B", ("/models",), True),
        ("/models/llama", (), True),
        ("/models/llama", ("/models",), True),
        ("/models/llama", ("/data", "/models"), True),
        ("/models", ("/models",), True),
        ("/models-of-others/llama", ("/models",), False),
        ("/models/../etc", ("/models",), False),
        ("/models/./llama", ("/models",), True),
        ("/etc", ("/models",), False),
        ("./llama", (), False),
        ("../llama", ("/models",), False),
        ("meta-llama/../../etc", (), False),
        ("..", (), False),
    ],
)
def test_models(model: str, roots: tuple[str, ...], allowed: bool) -> None:
    found = refused(AllowConfig(model_roots=tuple(map(Path, roots))), model=model)
    assert len(found) == (0 if allowed else 1)
    assert allowed or "model" in found[0]


@pytest.mark.parametrize(
    ("name", "patterns", "allowed"),
    [
        ("HF_HOME", ("HF_*",), True),
        ("hf_home", ("HF_*",), False),
        ("OMP_NUM_THREADS", ("HF_*",), False),
        ("OMP_NUM_THREADS", ("OMP_NUM_THREADS",), True),
        ("LD_PRELOAD", ("*",), False),
        ("LD_PRELOAD", ("LD_*",), False),
        ("LD_PRELOAD", ("LD_PRELOAD",), True),
        ("PYTHONPATH", ("*",), False),
        ("HTTPS_PROXY", ("*",), False),
        ("http_proxy", ("*",), False),
        ("HF_ENDPOINT", ("HF_*",), False),
        ("HF_ENDPOINT", ("HF_*", "HF_ENDPOINT"), True),
        ("VLLM_PLUGINS", ("VLLM_*",), False),
        ("HF_TOKEN", ("HF_*",), False),
        ("HF_TOKEN_PATH", ("HF_*",), True),
        ("AWS_SECRET_ACCESS_KEY", ("AWS_*",), False),
        ("VLLM_API_KEY", ("VLLM_API_KEY",), False),
        ("VLLM_SERVER_DEV_MODE", ("*", "VLLM_SERVER_DEV_MODE"), False),
        ("CUDA_VISIBLE_DEVICES", ("CUDA_VISIBLE_DEVICES",), False),
        ("FAKE_VLLM", ("HF_*",), False),
    ],
)
def test_variables(name: str, patterns: tuple[str, ...], allowed: bool) -> None:
    found = refused(AllowConfig(env=patterns), env={name: "x"})
    assert len(found) == (0 if allowed else 1)
    assert allowed or name in found[0]


def test_everything_that_is_wrong_is_said() -> None:
    said = refused(executable="sh", model="./x", env={"LD_PRELOAD": "x", "CUDA_VISIBLE_DEVICES": "0"})
    wrong = ("sh ", "./x", "LD_PRELOAD", "CUDA_VISIBLE_DEVICES")
    assert [what in text for what, text in zip(wrong, said, strict=True)] == [True] * 4


@pytest.mark.parametrize(
    ("args", "flags", "what"),
    [
        ({"max-model-len": 8}, ("*",), ""),
        ({"trust-remote-code": True}, ("*",), "--trust-remote-code is not named"),
        ({"trust_remote_code": True}, ("*",), "--trust-remote-code is not named"),
        ({"trust-remote": True}, ("*",), "--trust-remote-code is not named"),  # argparse completes it
        ({"trust-remote-code": False}, ("*",), ""),
        ({"trust-remote-code": True}, ("*", "trust-remote-code"), ""),
        ({"kv_transfer_config.kv_role": "both"}, ("*",), "--kv-transfer-config is not named"),
        ({"allowed-media-domains": ["example.org"]}, ("*",), "--allowed-media-domains is not named"),
        ({"worker-cls": "mine.Worker"}, ("w*",), "--worker-cls is not named"),
        ({"max-model-len": 8}, ("gpu-*",), "--max-model-len is not in allow.flags"),
        ({"gpu_memory_utilization": 0.5}, ("gpu-*",), ""),
    ],
)
def test_flags_are_the_nodes_decision(args: dict[str, Any], flags: tuple[str, ...], what: str) -> None:
    found = refused(AllowConfig(flags=flags), args=args)
    assert (what in "; ".join(found)) if what else found == ()


@pytest.mark.parametrize(
    ("args", "allowed"),
    [
        ({"tokenizer": "/models/tok"}, True),
        ({"tokenizer": "/models/../etc"}, False),
        ({"lora-modules": ["a=/models/a", "b=/elsewhere/b"]}, False),
        ({"lora-modules": ['{"name": "a", "path": "/elsewhere/a"}']}, False),
        ({"speculative-config": '{"model": "/models/draft"}'}, True),
        ({"chat-template": "{% if x %}/etc{% endif %}"}, True),
        ({"tokenizer": "org/name"}, True),
    ],
)
def test_paths_in_flags_lie_in_the_model_roots(args: dict[str, Any], allowed: bool) -> None:
    assert (refused(AllowConfig(model_roots=(Path("/models"),)), args=args) == ()) == allowed
    assert refused(args=args) == ()
