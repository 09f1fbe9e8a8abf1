"""What `up` decides to run."""

import json
import shlex
from pathlib import Path

import pytest

from supervisord_cp.cli.up_file import write_config
from supervisord_cp.cli.up_plan import (
    GPU_MODEL,
    Choice,
    Host,
    Places,
    Wish,
    choose,
    curl_line,
    devices_per_replica,
    engine_flags,
    tables,
)
from supervisord_cp.config.load import load
from supervisord_cp.config.schema import Config, Listen
from supervisord_cp.errors import UsageError
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.gpu import Gpu, GpuHealth, Holder

VLLM = "/opt/vllm/bin/vllm"


def gpu(index: int, *, held: bool = False, health: GpuHealth = GpuHealth.HEALTHY) -> Gpu:
    holders = (Holder(pid=7, owner="alice", command="train", bytes=1),) if held else ()
    return Gpu(uuid=DeviceId(f"GPU-{index}"), index=index, holders=holders, health=health)


LAPTOP = Host()
LAPTOP_VLLM = Host(vllm=VLLM)
SERVER = Host(gpus=tuple(map(gpu, range(4))), vllm=VLLM)
SERVER_WITHOUT_VLLM = Host(gpus=(gpu(0),))


@pytest.mark.parametrize(
    ("wish", "host", "engine", "device", "replicas", "model"),
    [
        (Wish(), LAPTOP, "fake", "cpu", 2, "fake-llama"),
        (Wish(), LAPTOP_VLLM, "fake", "cpu", 2, "fake-llama"),
        (Wish(model="m", replicas=3), LAPTOP, "fake", "cpu", 3, "m"),
        (Wish(), SERVER, "vllm", "cuda", 4, GPU_MODEL),
        (Wish(model="m", replicas=9), SERVER, "vllm", "cuda", 9, "m"),
        (Wish(), SERVER_WITHOUT_VLLM, "fake", "cpu", 2, "fake-llama"),
        (Wish(vllm=VLLM), SERVER_WITHOUT_VLLM, "vllm", "cuda", 1, GPU_MODEL),
        (Wish(engine="fake"), SERVER, "fake", "cpu", 2, "fake-llama"),
        (Wish(engine="fake", device="cuda"), SERVER, "fake", "cuda", 2, "fake-llama"),
        (Wish(model="m", vllm=VLLM), LAPTOP, "vllm", "cpu", 1, "m"),
        (Wish(model="m", engine="vllm"), LAPTOP_VLLM, "vllm", "cpu", 1, "m"),
        (Wish(model="m", vllm=VLLM, device="cpu", replicas=2), SERVER, "vllm", "cpu", 2, "m"),
        (Wish(model="m", engine="command", engine_args=("./s",)), LAPTOP, "command", "cpu", 1, "m"),
        (
            Wish(engine_args=("--tensor-parallel-size", "2")), SERVER, "vllm", "cuda", 2, GPU_MODEL,
        ),
    ],
)  # fmt: skip
def test_choices(wish: Wish, host: Host, engine: str, device: str, replicas: int, model: str) -> None:
    choice = choose(wish, host)
    assert (choice.engine, choice.device, choice.replicas, choice.model) == (engine, device, replicas, model)
    assert choice.note.endswith(".")
    assert "\n" not in choice.note


@pytest.mark.parametrize(
    ("wish", "host", "message"),
    [
        (Wish(device="cuda"), LAPTOP, "no GPU"),
        (Wish(engine="vllm"), LAPTOP, "not on PATH"),
        (Wish(vllm=VLLM), LAPTOP, "needs a MODEL"),
        (Wish(engine="command", model="m"), LAPTOP, "up NAME --engine command -- PROGRAM"),
        (Wish(engine="command", engine_args=("x",)), LAPTOP, "up NAME --engine command -- PROGRAM"),
        (Wish(engine_args=("8192",)), LAPTOP, "write engine flags long"),
        (Wish(), Host(gpus=(gpu(0, held=True),), vllm=VLLM), r"0 of 1 GPUs are free.*GPU 0: pid 7 \(alice\)"),
        (Wish(), Host(gpus=(gpu(3, health=GpuHealth.LOST),), vllm=VLLM), "GPU 3: lost"),
        (Wish(engine_args=("--tensor-parallel-size", "8")), SERVER, "an engine needs 8"),
    ],
)
def test_what_cannot_be_is_said(wish: Wish, host: Host, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose(wish, host)


def test_only_free_gpus_are_taken() -> None:
    host = Host(gpus=(gpu(0), gpu(1, held=True), gpu(2, health=GpuHealth.LOST), gpu(3)), vllm=VLLM)
    assert choose(Wish(), host).replicas == 2


def test_fakes_say_that_they_are_fakes() -> None:
    assert choose(Wish(), LAPTOP).note.startswith("No GPU here: two fake engines")
    assert choose(Wish(), SERVER_WITHOUT_VLLM).note.startswith("A GPU, but no vLLM on PATH")
    assert choose(Wish(engine="fake", replicas=1), SERVER).note.startswith("As asked for: one fake engine ")


def test_a_folder_is_served_under_its_name_and_its_path() -> None:
    choice = choose(Wish(model="/models/tiny-llama", vllm=VLLM), LAPTOP)
    assert (choice.name, choice.served_name) == ("tiny-llama", "tiny-llama")
    deployment = tables(choice, PLACES)["deployments"]["tiny-llama"]
    assert (deployment["model"], deployment["aliases"]) == ("/models/tiny-llama", ["/models/tiny-llama"])


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2-5-0-5b-instruct"),
        ("x" * 60, "x" * 40),
        ("a" * 39 + ".b", "a" * 39),
        ("模型", "model"),
    ],
)
def test_names_of_deployments(model: str, name: str) -> None:
    assert choose(Wish(model=model), LAPTOP).name == name


def test_engine_flags() -> None:
    words = (
        "--max-model-len",
        "8192",
        "--enforce-eager",
        "--a=b=c",
        "--x",
        "-1",
        "--lora-modules",
        "p=q",
        "r=s",
    )
    assert engine_flags(words) == {
        "max-model-len": 8192,
        "enforce-eager": True,
        "a": "b=c",
        "x": -1,
        "lora-modules": ["p=q", "r=s"],
    }


@pytest.mark.parametrize(
    ("word", "value"),
    [("0", 0), ("007", "007"), ("0.9", 0.9), ("0.90", "0.90"), ("1e3", "1e3"), ("", ""), ("2.", "2.")],
)
def test_numbers_among_flags_keep_their_spelling(word: str, value: object) -> None:
    flag = engine_flags(("--x", word))["x"]
    assert (flag, type(flag)) == (value, type(value))


@pytest.mark.parametrize("words", [("x",), ("-tp", "2"), ("--x", "-tp")])
def test_words_that_are_no_flags(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="write engine flags long"):
        engine_flags(words)


def test_devices_per_replica() -> None:
    assert devices_per_replica({}) == 1
    assert devices_per_replica({"tensor-parallel-size": 2, "pipeline-parallel-size": 2}) == 4
    with pytest.raises(UsageError, match="--tensor-parallel-size many"):
        devices_per_replica({"tensor-parallel-size": "many"})


PLACES = Places(
    api=Listen(host="127.0.0.1", port=9100),
    control=Listen(host="0.0.0.0", port=9101),
    agent=None,
    ports=(8100, 8199),
    state_dir=Path("/state dir"),
)


def loaded(choice: Choice, places: Places, tmp_path: Path) -> Config:
    write_config(tmp_path / "up.toml", tables(choice, places))
    return load(tmp_path / "up.toml")


@pytest.mark.parametrize(
    ("wish", "host"),
    [
        (Wish(), LAPTOP),
        (Wish(), SERVER),
        (
            Wish(
                model='we"ird\\\x7f\n模', vllm=VLLM, engine_args=("--seed", '"', "--lora-modules", "1", "2")
            ),
            LAPTOP,
        ),
        (Wish(model="m", engine="command", engine_args=("/s", "--port", "{port}")), LAPTOP),
        (Wish(model="m", replicas=7, vllm=VLLM, engine_args=("--tensor-parallel-size=2",)), SERVER),
    ],
)
def test_the_configuration_is_valid_and_says_what_was_chosen(wish: Wish, host: Host, tmp_path: Path) -> None:
    choice = choose(wish, host)
    local = Places(
        api=PLACES.api, control=PLACES.api, agent=PLACES.api, ports=PLACES.ports, state_dir=PLACES.state_dir
    )
    config = loaded(choice, local, tmp_path)
    (deployment,) = config.deployments
    assert (deployment.engine, deployment.model) == (choice.engine, choice.model)
    assert (deployment.gpus, deployment.replicas) == (choice.gpus, choice.replicas)
    assert (deployment.args, deployment.command) == (choice.args, choice.command)
    assert config.agent.device == choice.device
    assert config.agent.slots >= choice.replicas * choice.gpus
    assert config.agent.ports == (8100, 8199)
    program = choice.command[:1] or ((choice.executable,) if choice.executable else ())
    assert len(config.agent.allow.executables) == len(program)
    assert not config.central.start_router
    assert config.central.settle_s == 0
    assert config.central.state_dir == Path("/state dir/central")


def test_daemons_reach_a_wildcard_listener_at_loopback() -> None:
    written = tables(choose(Wish(), LAPTOP), PLACES)
    assert written["central"]["control_listen"] == "0.0.0.0:9101"
    assert written["agent"]["central"] == written["router"]["central"] == "http://127.0.0.1:9101"


def test_several_engines_start_at_once_only_where_that_is_cheap() -> None:
    def parallel(wish: Wish, host: Host) -> int:
        value = tables(choose(wish, host), PLACES)["agent"]["max_parallel_starts"]
        assert isinstance(value, int)
        return value

    assert parallel(Wish(replicas=3), LAPTOP) == 3
    assert parallel(Wish(), SERVER) == 4
    assert parallel(Wish(replicas=9), SERVER) == 4
    assert parallel(Wish(model="m", vllm=VLLM, replicas=3), LAPTOP) == 1


@pytest.mark.parametrize("model", ["fake-llama", 'it\'s "x" \\ $HOME `id` 模'])
def test_the_curl_line_survives_a_shell(model: str) -> None:
    words = shlex.split(curl_line("http://127.0.0.1:9000", model))
    assert words[:2] == ["curl", "http://127.0.0.1:9000/v1/chat/completions"]
    assert json.loads(words[-1])["model"] == model
    assert "\n" not in curl_line("http://127.0.0.1:9000", model)
