"""From a file to values."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from supervisord_cp.config.load import find_file, load, parse
from supervisord_cp.config.schema import Config, DeploymentConfig, Listen, StaticInstanceConfig
from supervisord_cp.errors import ConfigErrors
from supervisord_cp.model.fleet import PolicyUse


def deployment(text: str, path: Path | None = None) -> DeploymentConfig:
    (only,) = parse(f"[deployments.a]\n{text}", path).deployments
    return only


def test_an_empty_file_gives_the_defaults() -> None:
    assert parse("") == Config()


def test_a_file_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path / "none.toml")
    assert (
        str(caught.value) == f"{tmp_path}/none.toml: there is no such file  (config.example.toml is a start)"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a = '\xff'", "not UTF-8 text: byte 5 is wrong"), (None, "cannot be read: is a directory")],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "c.toml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(ConfigErrors) as caught:
        load(path)
    assert str(caught.value) == f"{path}: {message}"


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(b"\xef\xbb\xbf[central]\ngpu_budget = 3\nzzz = 1")
    with pytest.raises(ConfigErrors, match=r"c\.toml:3:1: central\.zzz"):
        load(path)


def test_the_file_and_its_tables_are_remembered(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[agent]\n[central]\n[deployments]\n")
    config = load(path)
    assert config.path == path
    assert config.tables == ("agent", "central", "deployments")


def test_relative_paths_resolve_against_the_file() -> None:
    path = Path("/etc/cp/config.toml")
    config = parse(
        """
        [central]
        tokens_file = "tokens"
        state_dir = "/var/state"
        [plugins]
        paths = ["plugins", "../more"]
        [agent.allow]
        executables = ["vllm", "./bin/serve", "/opt/vllm"]
        """,
        path,
    )
    assert config.central.tokens_file == Path("/etc/cp/tokens")
    assert config.central.state_dir == Path("/var/state")
    assert config.plugins.paths == (Path("/etc/cp/plugins"), Path("/etc/cp/../more"))
    assert config.agent.allow.executables == ("vllm", "/etc/cp/bin/serve", "/opt/vllm")
    chat = deployment('engine = "command"\ncommand = ["./serve", "x/y", "{port}"]\nmodel = "../m"', path)
    assert chat.command == ("/etc/cp/serve", "x/y", "{port}")
    assert chat.model == "/etc/cp/../m"
    assert deployment('model = "org/model"', path).model == "org/model"


def test_the_home_of_the_reader_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert parse('[central]\nstate_dir = "~/state"').central.state_dir == Path("/home/me/state")
    assert deployment('model = "~/m"').model == "/home/me/m"


def test_an_empty_string_is_no_file_and_no_listener() -> None:
    config = parse('[router]\ntoken_file = ""\ntls_cert = ""\n[agent]\nlisten = ""\n[prometheus]\nurl = ""')
    assert config.router.token_file is None
    assert config.router.tls_cert is None
    assert config.agent.listen is None
    assert config.prometheus.url == ""


@pytest.mark.parametrize(
    ("written", "router"),
    [
        ('"kv"', (PolicyUse(use="kv"),)),
        ('{ use = "kv", weight = 2 }', (PolicyUse(use="kv", weight=2.0),)),
        (
            '["a", { use = "b", params = { x = [1] } }]',
            (PolicyUse(use="a"), PolicyUse(use="b", params={"x": [1]})),
        ),
    ],
)
def test_a_router_is_a_name_a_table_or_a_list_of_these(written: str, router: tuple[PolicyUse, ...]) -> None:
    assert deployment(f'model = "m"\nrouter = {written}').router == router


def test_a_scheduler_is_a_name_or_a_table() -> None:
    assert deployment('model = "m"\nscheduler = "fair"').scheduler == PolicyUse(use="fair")
    table = '{ use = "slo_aware", params = { slack_ms = 5 } }'
    assert deployment(f'model = "m"\nscheduler = {table}').scheduler == PolicyUse(
        use="slo_aware", params={"slack_ms": 5}
    )


def test_gpu_cost_is_a_number_or_a_table_by_name() -> None:
    assert parse("[agent]\ngpu_cost_per_hour = 2").agent.gpu_cost_per_hour == 2.0
    assert parse("[agent.gpu_cost_per_hour]\nH100 = 4").agent.gpu_cost_per_hour == {"H100": 4.0}


def test_flags_keep_their_types_and_order() -> None:
    args = deployment('model = "m"\nargs = { z = true, x = 0.5, y = [1, "x"], w = "" }').args
    assert list(args.items()) == [("z", True), ("x", 0.5), ("y", [1, "x"]), ("w", "")]


def test_whole_numbers_are_read_as_seconds() -> None:
    assert isinstance(parse("[router]\nqueue_timeout_s = 30").router.queue_timeout_s, float)


def test_no_replicas_where_no_engine_is_started() -> None:
    text = 'engine = "none"\n[[static_instances]]\nid = "s"\ndeployment = "a"\nurl = "http://h:1/"'
    config = parse(f"[deployments.a]\n{text}")
    assert config.deployments[0].replicas == 0
    assert config.static_instances == (StaticInstanceConfig(id="s", deployment="a", url="http://h:1"),)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('model = "m"', ("m",)),
        ('model = "m"\nserved_name = "s"\naliases = ["x", "y"]', ("s", "x", "y")),
        ('engine = "command"\ncommand = ["{port}"]', ("a",)),
    ],
)
def test_names_for_clients(text: str, names: tuple[str, ...]) -> None:
    assert deployment(text).names == names


def test_every_key_of_a_deployment_reaches_its_value() -> None:
    written = deployment(
        """
        engine = "fake"
        model = "m"
        slo = { ttft_ms = 1, itl_ms = 2.5 }
        [deployments.a.autoscale]
        min = 0
        max = 3
        scalers = ["fixed", { use = "hpa" }]
        behavior.scale_down = { policies = [{ type = "Percent", value = 50 }], select_policy = "Disabled" }
        """
    )
    assert written.autoscale is not None
    assert (written.autoscale.min, written.autoscale.max) == (0, 3)
    assert [use.use for use in written.autoscale.scalers] == ["fixed", "hpa"]
    down = written.autoscale.behavior.scale_down
    assert (down.select_policy, down.policies[0].type, down.policies[0].value) == ("Disabled", "Percent", 50)
    assert (written.slo.ttft_ms, written.slo.itl_ms) == (1.0, 2.5)


def test_the_file_is_the_named_one_else_by_environment_else_local_else_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {"SUPERVISORD_CP_CONFIG": "/x.toml"}
    assert find_file(Path("mine.toml"), environment) == Path("mine.toml")
    assert find_file(None, environment) == Path("/x.toml")
    assert find_file(None, {"SUPERVISORD_CP_CONFIG": ""}) == Path("/etc/supervisord-cp/config.toml")
    (tmp_path / "config.toml").touch()
    assert find_file(None, {}) == Path("config.toml")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.1", False),
        ("127.example.com", False),
    ],
)
def test_loopback_is_what_only_this_host_reaches(host: str, loopback: bool) -> None:
    assert Listen(host=host, port=1).loopback is loopback


def test_equal_texts_give_equal_values() -> None:
    text = '[deployments.a]\nmodel = "m"\n[deployments.b]\nmodel = "n"\ngpus = 2\n'
    assert parse(text) == parse(text)
    assert replace(parse(text), deployments=()) == replace(parse(""), tables=("deployments",))
