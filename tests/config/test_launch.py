"""What engines are started with."""

from supervisord_cp.config.launch import launch_spec
from supervisord_cp.config.load import parse
from supervisord_cp.model.launch import EngineKind, LaunchSpec, revision_of


def spec(text: str) -> LaunchSpec:
    (only,) = parse(f"[deployments.a]\n{text}").deployments
    return launch_spec(only)


def test_every_value_that_an_engine_is_started_with() -> None:
    assert spec(
        """
        engine = "vllm"
        model = "org/model"
        served_name = "m"
        aliases = ["x"]
        executable = "/opt/vllm"
        args = { max-model-len = 1, enforce-eager = true }
        env = { VLLM_X = "1" }
        gpus = 2
        start_timeout_s = 5
        stop_grace_s = 1
        """
    ) == LaunchSpec(
        engine=EngineKind.VLLM,
        model="org/model",
        served_names=("m", "x"),
        executable="/opt/vllm",
        args={"max-model-len": 1, "enforce-eager": True},
        env={"VLLM_X": "1"},
        gpus=2,
        start_timeout_s=5.0,
        stop_grace_s=1.0,
    )


def test_a_command_with_its_own_path_of_readiness() -> None:
    made = spec('engine = "command"\ncommand = ["serve", "{port}"]\nready_path = "/ok"')
    assert (made.engine, made.command, made.ready_path) == (EngineKind.COMMAND, ("serve", "{port}"), "/ok")
    assert made.served_names == ("a",)


def test_equal_deployments_have_one_revision() -> None:
    first = spec('model = "m"\nargs = { x = 1, y = 2 }')
    assert revision_of(first) == revision_of(spec('model = "m"\nargs = { y = 2, x = 1 }\npriority = 5'))
    assert revision_of(first) != revision_of(spec('model = "m"\nargs = { x = 1, y = 3 }'))
