"""What is executed for a deployment of vLLM, and with which environment."""

from typing import Any

import pytest

from supervisord_cp.engines.base import Capabilities, LaunchRefused
from supervisord_cp.engines.vllm import OWNED_FLAGS, PREFIXES_IN_USE, VllmEngine, drain_s
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.launch import ArgValue, EngineKind, program_of
from tests.engines.samples import EVERYTHING, OLD, context, spec

TWO = {"gpus": 2}
ON_TWO = {"devices": (DeviceId("GPU-a"), DeviceId("GPU-b")), "device_indexes": (3, 5)}
ON_CPU: dict[str, Any] = {"device_kind": "cpu", "devices": (DeviceId("slot-0"),), "device_indexes": ()}


def argv(found: Capabilities = OLD, on: dict[str, Any] | None = None, **fields: Any) -> tuple[str, ...]:
    return VllmEngine().prepare(spec(**fields), context(**(on or {})), found).argv


def env(on: dict[str, Any] | None = None, **fields: Any) -> dict[str, str]:
    return VllmEngine().prepare(spec(**fields), context(**(on or {})), OLD).env


def test_the_whole_command_line() -> None:
    assert argv(args={"max_model_len": 8192, "enable-prefix-caching": False}) == (
        "/opt/vllm/bin/vllm",
        "serve",
        "meta-llama/Llama-3.1-8B",
        "--host",
        "127.0.0.1",
        "--port",
        "8000",
        "--served-model-name",
        "llama",
        "--max-model-len",
        "8192",
        "--no-enable-prefix-caching",
    )


def test_a_python_runs_the_same_program() -> None:
    python = Capabilities(executable="/opt/vllm/bin/python3.12")
    assert argv(python)[:4] == ("/opt/vllm/bin/python3.12", "-m", "vllm.entrypoints.cli.main", "serve")


def test_the_whole_environment() -> None:
    assert env() == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "3",
        "SPT_NOENV": "1",
        "SUPERVISORD_CP_NONCE": "n0nce",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "3600",
        "VLLM_NO_USAGE_STATS": "1",
    }


def test_the_whole_environment_on_cpu() -> None:
    assert env(ON_CPU) == {
        "CUDA_VISIBLE_DEVICES": "",
        "SPT_NOENV": "1",
        "SUPERVISORD_CP_NONCE": "n0nce",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "3600",
        "VLLM_NO_USAGE_STATS": "1",
    }


@pytest.mark.parametrize(
    ("on", "visible"),
    [
        (ON_TWO, "3,5"),
        ({"device_indexes": ()}, "GPU-a"),  # the reader does not know the index: better than none
        ({"devices": (DeviceId("MIG-a"),), "device_indexes": (0,)}, "MIG-a"),
        ({"devices": (), "device_indexes": ()}, ""),
    ],
)
def test_visible_devices(on: dict[str, Any], visible: str) -> None:
    assert env(on)["CUDA_VISIBLE_DEVICES"] == visible


@pytest.mark.parametrize(
    ("names", "args", "flag"),
    [
        (("llama", "default"), {}, ("--served-model-name", "llama", "default")),
        (("llama", "sql"), {"lora-modules": ["sql=/adapters/sql"]}, ("--served-model-name", "llama")),
        (
            ("llama", "sql", "law"),
            {"lora-modules": '{"name": "sql", "path": "/a"}'},
            ("--served-model-name", "llama", "law"),
        ),
        (("llama",), {"lora-modules": ["{broken"]}, ("--served-model-name", "llama")),
        ((), {}, ()),
    ],
)
def test_served_names(names: tuple[str, ...], args: dict[str, ArgValue], flag: tuple[str, ...]) -> None:
    line = argv(served_names=names, args=args)
    start = line.index("8000") + 1
    assert line[start : start + len(flag)] == flag
    assert line[start + len(flag) :] == () or line[start + len(flag)].startswith("--")


@pytest.mark.parametrize(
    ("fields", "on", "size"),
    [
        ({}, {}, None),
        (TWO, ON_TWO, "2"),
        ({**TWO, "args": {"tensor-parallel-size": 1}}, ON_TWO, "1"),
        ({**TWO, "args": {"data_parallel_size": 2}}, ON_TWO, None),
        ({**TWO, "args": {"pipeline-parallel-size": 2}}, ON_TWO, None),
        (TWO, {**ON_TWO, "device_kind": "cpu"}, "2"),
    ],
)
def test_tensor_parallel_size(fields: dict[str, Any], on: dict[str, Any], size: str | None) -> None:
    line = argv(on=on, **fields)
    assert line.count("--tensor-parallel-size") == (0 if size is None else 1)
    if size is not None:
        assert line[line.index("--tensor-parallel-size") + 1] == size


@pytest.mark.parametrize(
    ("grace_s", "args", "timeout"),
    [
        (30.0, {}, "20"),
        (15.0, {}, "7"),
        (5.0, {}, "2"),
        (1.0, {}, None),  # nothing to share out: requests are aborted at once
        (30.0, {"shutdown-timeout": 5}, "5"),
        (30.0, {"shutdown-timeout": 0}, "0"),
        (30.0, {"shutdown-timeout": 20}, "20"),
    ],
)
def test_shutdown_timeout(grace_s: float, args: dict[str, ArgValue], timeout: str | None) -> None:
    line = argv(EVERYTHING, stop_grace_s=grace_s, args=args)
    assert line.count("--shutdown-timeout") == (0 if timeout is None else 1)
    if timeout is not None:
        assert line[line.index("--shutdown-timeout") + 1] == timeout


def test_flags_that_the_version_lacks_are_not_used() -> None:
    line = argv(OLD)
    assert "--shutdown-timeout" not in line
    assert "--disable-access-log-for-endpoints" not in line


@pytest.mark.parametrize("grace_s", [0.0, 0.5, 3.0, 10.0, 20.0, 30.0, 600.0])
def test_a_drain_ends_before_the_kill(grace_s: float) -> None:
    assert 0 <= drain_s(grace_s) < max(grace_s, 1.0)


@pytest.mark.parametrize(
    ("args", "quiet"),
    [
        ({}, ("--disable-access-log-for-endpoints", "/health,/metrics")),
        ({"disable-access-log-for-endpoints": "/ping"}, ("--disable-access-log-for-endpoints", "/ping")),
        ({"disable-uvicorn-access-log": True}, ("--disable-uvicorn-access-log",)),
    ],
)
def test_our_polling_does_not_fill_the_log(args: dict[str, ArgValue], quiet: tuple[str, ...]) -> None:
    line = argv(EVERYTHING, args=args)
    (at,) = [at for at, part in enumerate(line) if "access-log" in part]
    assert line[at : at + len(quiet)] == quiet


@pytest.mark.parametrize(
    ("on", "args", "eager"),
    [
        ({}, {}, []),
        (ON_CPU, {}, ["--enforce-eager"]),
        (ON_CPU, {"enforce_eager": True}, ["--enforce-eager"]),
        (ON_CPU, {"enforce-eager": False}, ["--no-enforce-eager"]),
        (ON_CPU, {"compilation-config": "3"}, []),
        (ON_CPU, {"no-enforce-eager": True}, ["--no-enforce-eager"]),
    ],
)
def test_no_compiling_on_cpu(on: dict[str, Any], args: dict[str, ArgValue], eager: list[str]) -> None:
    assert [part for part in argv(on=on, args=args) if part.endswith("enforce-eager")] == eager


@pytest.mark.parametrize(
    ("model", "given", "offline"),
    [
        ("/models/llama", {}, "1"),
        ("/models/llama", {"HF_HUB_OFFLINE": "0"}, "0"),
        ("meta-llama/Llama-3.1-8B", {}, None),
        ("meta-llama/Llama-3.1-8B", {"HF_HUB_OFFLINE": "1"}, "1"),
    ],
)
def test_a_local_model_asks_no_hub(model: str, given: dict[str, str], offline: str | None) -> None:
    assert env(model=model, env=given).get("HF_HUB_OFFLINE") == offline


@pytest.mark.parametrize(
    ("host", "given", "internal"),
    [
        ("127.0.0.1", {}, "127.0.0.1"),
        ("127.0.0.7", {}, "127.0.0.7"),
        ("::1", {}, "::1"),
        ("192.168.1.100", {}, "127.0.0.1"),
        ("192.168.1.100", {"VLLM_HOST_IP": "192.168.1.100"}, "192.168.1.100"),
    ],
)
def test_internal_traffic_stays_on_the_node(host: str, given: dict[str, str], internal: str) -> None:
    assert env({"host": host}, env=given)["VLLM_HOST_IP"] == internal


def test_what_the_agent_decides() -> None:
    assert env({"internal_ports": 20016, "dev_mode": True})["VLLM_PORT"] == "20016"
    assert not {"VLLM_PORT", "VLLM_SERVER_DEV_MODE", "VLLM_API_KEY"} & env().keys()


def test_a_key_travels_in_the_environment_only() -> None:
    prepared = VllmEngine().prepare(spec(), context(host="192.168.1.100", api_key="s3cret"), EVERYTHING)
    assert prepared.env["VLLM_API_KEY"] == "s3cret"
    assert prepared.secrets == {"VLLM_API_KEY"}
    assert not any("s3cret" in part for part in prepared.argv)
    assert VllmEngine().prepare(spec(), context(), EVERYTHING).secrets == frozenset()


@pytest.mark.parametrize("flag", OWNED_FLAGS)
@pytest.mark.parametrize("spelling", ["{}", "{}.key", "{}+"])
def test_owned_flags(flag: str, spelling: str) -> None:
    for name in (flag, flag.replace("-", "_")):
        with pytest.raises(LaunchRefused, match=f"--{flag} cannot be set: "):
            argv(args={spelling.format(name): "x"})


@pytest.mark.parametrize(
    "flag", ["hos", "por", "u", "ud", "api", "api-ke", "served-model", "ssl", "conf", "mode"]
)
def test_abbreviations_of_owned_flags(flag: str) -> None:
    with pytest.raises(LaunchRefused, match="cannot be set"):
        argv(args={flag: "x"})


@pytest.mark.parametrize("flag", [*PREFIXES_IN_USE, "hf-token", "config-format", "model-impl", "grpc-port"])
def test_flags_that_only_begin_alike(flag: str) -> None:
    assert argv(args={flag: "x"})[-2:] == (f"--{flag}", "x")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"model": "--api-key"}, "model: '--api-key'"),
        ({"model": ""}, "model: '' is empty"),
        ({"model": "a\0b"}, "model: a NUL"),
        ({"served_names": ("llama", "-x")}, "served name: '-x'"),
        ({"served_names": ("",)}, "served name: ''"),
        ({"env": {"VLLM_API_KEY": "x"}}, "VLLM_API_KEY cannot be set"),
        ({"env": {"CUDA_VISIBLE_DEVICES": "0"}}, "CUDA_VISIBLE_DEVICES cannot be set"),
        ({"env": {"SUPERVISORD_CP_NONCE": "x"}}, "SUPERVISORD_CP_NONCE cannot be set"),
        ({"env": {"A=B": "x"}}, "no name of a variable"),
        ({"env": {"HF_HOME": "a\0b"}}, "NUL"),
        ({"args": {"tensor-parallel-size": 2}}, "2 devices are needed, `gpus` gives 1"),
        (
            {"args": {"tensor-parallel-size": 2, "pipeline-parallel-size": 2}, "gpus": 2},
            "4 devices are needed",
        ),
    ],
)
def test_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(LaunchRefused, match=text):
        argv(**fields)


def test_a_drain_that_the_kill_would_cut_is_refused() -> None:
    with pytest.raises(LaunchRefused, match="raise stop_grace_s"):
        argv(EVERYTHING, stop_grace_s=30.0, args={"shutdown_timeout": 25})


@pytest.mark.parametrize(
    ("fields", "program"),
    [
        ({}, "vllm"),
        ({"executable": "/opt/vllm/bin/vllm"}, "/opt/vllm/bin/vllm"),
        ({"engine": EngineKind.FAKE}, ""),
        ({"engine": EngineKind.COMMAND, "command": ("llama-server", "--port", "{port}")}, "llama-server"),
        ({"engine": EngineKind.COMMAND}, ""),
        ({"engine": EngineKind.NONE}, ""),
    ],
)
def test_program_of(fields: dict[str, Any], program: str) -> None:
    assert program_of(spec(**fields)) == program
