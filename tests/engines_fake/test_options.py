"""vLLM's flags and the knobs: what is taken, what is refused, and that every knob is documented."""

import json
from pathlib import Path

import pytest

from supervisord_cp.engines.fake.faults import Faults
from supervisord_cp.engines.fake.knobs import KNOBS, LIVE, KnobError, Knobs, kind_of, update
from supervisord_cp.engines.fake.options import parse

ROOT = Path(__file__).parents[2]


def test_flags_that_mean_something() -> None:
    options, knobs = parse(
        [
            *("serve", "org/model", "--host", "127.0.0.1", "--port=8123", "--served-model-name", "a", "b"),
            *("--max_model_len", "8K", "--max-num-seqs", "7", "-tp", "2", "--pipeline-parallel-size", "3"),
            *("--shutdown-timeout", "30", "--no-enable-prefix-caching", "--root-path", "/x/"),
        ],
        {},
    )
    assert (options.model, options.served_names, options.port) == ("org/model", ("a", "b"), 8123)
    assert (options.max_model_len, options.max_num_seqs, options.workers) == (8192, 7, 6)
    assert (options.shutdown_timeout_s, options.prefix_caching, options.root_path) == (30, False, "/x")
    assert knobs == Knobs()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--dtype", "bfloat16", "--kv-transfer-config", '{"a_b": 1}', "--enforce-eager"],
        ["--compilation-config.mode", "3", "-O3", "-cc.cudagraph_mode=none"],
        ["--disable_log_stats", "--no-async-scheduling", "--limit-mm-per-prompt.image", "2"],
        ["--gpu-memory-utilization", "0.9", "--device-ids", "0,1", "--uvicorn-log-level=warning"],
    ],
)
def test_every_flag_of_vllm_is_taken(arguments: list[str]) -> None:
    options, _ = parse(["serve", "m", *arguments], {})
    assert options.model == "m"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "m", "--no-such-flag", "3"], "vllm: error: unrecognized arguments: --no-such-flag 3"),
        (["serve", "m", "--port", "abc"], "vllm serve: error: argument --port: invalid int value: 'abc'"),
        (["serve", "m", "--served-model"], "unrecognized arguments: --served-model"),
        (["serve", "m", "--max-model-len", "x"], "invalid number of tokens: 'x'"),
        (["serve", "m", "--fake-fail-start", "bad luck"], "expected one of configuration"),
        (["bench"], "only `serve` is faked"),
        ([], "only `serve` is faked"),
    ],
)
def test_what_vllm_would_not_know_ends_with_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments, {})
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"nope": 1}', '{"hang": 1}', '{"itl_ms": -1}', '{"itl_ms": null}']
)
def test_nonsense_in_the_environment_ends_with_status_2(text: str) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["serve", "m"], {"FAKE_VLLM": text})
    assert ended.value.code == 2


def test_flags_override_the_environment() -> None:
    given = json.dumps({"itl_ms": 7, "hang": True, "die_after_tokens": 3})
    _, knobs = parse(["serve", "m", "--fake-itl-ms", "9", "--no-fake-hang"], {"FAKE_VLLM": given})
    assert knobs == Knobs(itl_ms=9.0, hang=False, die_after_tokens=3)


def test_keys_come_from_flags_or_the_environment_and_stay_out_of_the_log() -> None:
    options, _ = parse(["serve", "m", "--api-key", "k1", "k2"], {"VLLM_API_KEY": "k3"})
    assert options.api_keys == ("k1", "k2")
    assert "k1" not in options.non_default
    options, _ = parse(["serve", "m"], {"VLLM_API_KEY": "k3"})
    assert options.api_keys == ("k3",)


def test_every_knob_can_be_set_by_flag_and_by_environment() -> None:
    values = {bool: True, int: 3, float: 0.5, str: ""}
    for name in KNOBS:
        choices = KNOBS[name].metadata["choices"]
        value = choices[-1] if choices else values[kind_of(name)]
        flag = f"--fake-{name.replace('_', '-')}"
        _, by_flag = parse(["serve", "m", flag, *([] if value is True else [str(value)])], {})
        _, by_environment = parse(["serve", "m"], {"FAKE_VLLM": json.dumps({name: value})})
        assert getattr(by_flag, name) == getattr(by_environment, name) == value


def test_only_live_knobs_change_in_a_running_engine() -> None:
    assert update(Knobs(), {"hang": True, "cut_after_tokens": None}, live=True) == Knobs(hang=True)
    for name in KNOBS.keys() - LIVE:
        with pytest.raises(KnobError, match="fixed at the start"):
            update(Knobs(), {name: getattr(Knobs(), name)}, live=True)


def test_a_change_with_an_error_changes_nothing() -> None:
    faults = Faults(Knobs())
    with pytest.raises(KnobError, match="unknown knob 'hung'"):
        faults.change({"hang": True, "hung": True})
    assert faults.knobs == Knobs()


def test_fail_first_counts_anew_when_it_is_set() -> None:
    faults = Faults(Knobs(fail_first=1))
    assert [faults.refusal(), faults.refusal()] == [500, None]
    faults.change({"fail_first": 2, "fail_status": 503})
    assert [faults.refusal(), faults.refusal(), faults.refusal()] == [503, 503, None]


def test_every_knob_and_every_failure_is_documented() -> None:
    rows = [
        line for line in (ROOT / "docs/fake-engine.md").read_text().splitlines() if line.startswith("| `")
    ]
    documented = {line.split("`")[1]: line for line in rows}
    for name, knob in KNOBS.items():
        assert name in documented, f"{name} is not in docs/fake-engine.md"
        default = json.dumps(knob.default)
        assert f"| {default} |" in documented[name], f"{name}: the default is {default}"
        assert ("| live |" in documented[name]) == (name in LIVE), f"{name}: live or not"
        for choice in filter(None, knob.metadata["choices"]):
            assert f"`{choice}`" in "\n".join(rows), f"{name}: {choice} is not documented"
