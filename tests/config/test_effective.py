"""The configuration in effect, written down and read back."""

import json
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from supervisord_cp.config.containers import Either, Many, Maybe, Named
from supervisord_cp.config.derive import homes, table_of
from supervisord_cp.config.effective import from_plain, masked, plain
from supervisord_cp.config.findings import Level
from supervisord_cp.config.kinds import Kind
from supervisord_cp.config.load import load, parse, read, read_document
from supervisord_cp.config.schema import Config
from supervisord_cp.config.sites import Record, Site
from supervisord_cp.config.spelling import Mismatch
from supervisord_cp.config.tables import ByName, Policy, Table
from supervisord_cp.config.toml_text import inline, toml_text

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"

# Documents of any configuration: from the schema's own kinds, so that a new key is covered at once.

CANDIDATES: list[object] = [
    *(
        True,
        False,
        0,
        1,
        7,
        0.5,
        2.5,
        "",
        "a",
        "b-1",
        "/x",
        "./x",
        "~",
        "h:1",
        "[::1]:0",
        "8000-8099",
        "64MiB",
    ),
    *("http://h:1", "https://h/x", "two words", 'q"\\\n\x7f', "é"),
    *("auto", "cuda", "direct", "systemd", "fake", "command", "none", "level1", "Pods", "Percent", "Min"),
    "concurrency",
    *([1, "x", True], {"x": [1, {"y": 2.5}], "z": date(2026, 1, 2)}, {}),
]


def accepts(kind: Kind, raw: object) -> bool:
    record = Record(findings=[], sections=[], homes=homes())
    try:
        kind.read(raw, Site((), Path("/etc"), record))
    except Mismatch:
        return False
    return not record.findings


def written(kind: Kind) -> st.SearchStrategy[Any]:
    """What a file may have for a kind."""
    if isinstance(kind, Maybe):
        return written(kind.kind)
    if isinstance(kind, Many):
        return st.lists(written(kind.item), min_size=int(kind.single), max_size=2)
    if isinstance(kind, Either):
        return written(kind.single) | written(kind.table)
    if isinstance(kind, Named):
        return st.dictionaries(st.sampled_from(["A", "b c", "HF_TOKEN"]), written(kind.item), max_size=2)
    if isinstance(kind, ByName):
        return st.dictionaries(st.sampled_from(["a", "b-2"]), written(kind.table), max_size=2)
    if isinstance(kind, Policy):
        return st.sampled_from(["p", "q"]) | written(kind.table).filter(lambda table: table["use"] != "")
    if isinstance(kind, Table):
        keys = kind.keys.values()
        return st.fixed_dictionaries(
            {key.name: written(key.kind) for key in keys if key.required},
            optional={key.name: written(key.kind) for key in keys if not key.required},
        )
    return st.sampled_from([raw for raw in CANDIDATES if accepts(kind, raw)])


@settings(max_examples=150, deadline=None)
@given(written(table_of(Config)))
def test_what_is_written_down_is_read_back(document: dict[str, Any]) -> None:
    for deployment in document.get("deployments", {}).values():
        if "autoscale" in deployment:
            deployment.pop("replicas", None)  # an error: what is in effect would say less than the file
    config = read_document(document, path=Path("/etc/c.toml")).config
    again = read(toml_text(plain(config)), Path("/elsewhere/c.toml")).config
    assert replace(again, path=None, tables=()) == replace(config, path=None, tables=())


def test_the_form_for_other_programs_is_json_and_gives_the_same_configuration() -> None:
    config = load(EXAMPLE)
    document = json.loads(json.dumps(plain(config)))
    assert replace(from_plain(document), tables=config.tables) == replace(config, path=None)


def test_keys_of_another_release_are_passed_over() -> None:
    document = plain(Config())
    document["new_table"] = {"x": 1}
    document["central"] = {"gpu_budget": 3, "new_key": True, "settle_s": "soon"}
    assert from_plain(document).central == replace(Config().central, gpu_budget=3)


def test_what_is_shown_can_be_used_as_it_is() -> None:
    text = """
    [deployments.a]
    engine = "command"
    command = ["serve", "{port}"]
    [deployments.b]
    engine = "none"
    [deployments.c]
    model = "m"
    autoscale.max = 3
    [[static_instances]]
    id = "s"
    deployment = "b"
    url = "http://h:1"
    """
    shown = read(toml_text(plain(parse(text))))
    assert shown.problems(Level.ERROR) == ()
    assert shown.problems(Level.WARNING) == ()


def test_what_has_no_value_is_shown_empty_where_that_can_be_written() -> None:
    document = plain(Config())
    assert document["central"]["tokens_file"] == ""  # type: ignore[index]
    assert "gpu_cost_per_hour" not in document["agent"]  # type: ignore[operator]


def test_secrets_are_masked_and_nothing_else() -> None:
    config = parse(
        """
        [prometheus]
        url = "https://me:pass@prometheus/x"
        [deployments.a]
        engine = "command"
        command = ["serve", "{port}", "--api-key", "k1"]
        env = { HF_TOKEN = "t1", OTHER = "o", EMPTY_TOKEN = "" }
        [deployments.b]
        model = "m"
        args = { hf-token = "t2", max-model-len = 4096, wandb-api-key = ["t3"], auth-token = true }
        """
    )
    shown = masked(config)
    assert shown.prometheus.url == "https://***@prometheus/x"
    assert shown.deployments[0].command == ("serve", "{port}", "--api-key", "***")
    assert shown.deployments[0].env == {"HF_TOKEN": "***", "OTHER": "o", "EMPTY_TOKEN": ""}
    assert shown.deployments[1].args == {
        "hf-token": "***",
        "max-model-len": 4096,
        "wandb-api-key": "***",
        "auth-token": True,
    }
    text = toml_text(plain(shown))
    assert not any(secret in text for secret in ("pass@", "k1", "t1", "t2", "t3"))
    assert masked(shown) == shown


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
leaves = (
    texts
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.dates()
    | st.datetimes()
    | st.times()
)
documents = st.dictionaries(
    texts,
    st.recursive(
        leaves,
        lambda items: st.lists(items, max_size=3) | st.dictionaries(texts, items, max_size=3),
        max_leaves=12,
    ),
    max_size=4,
)


@settings(max_examples=200, deadline=None)
@given(documents)
def test_any_document_is_parsed_back(document: dict[str, object]) -> None:
    assert tomli.loads(toml_text(document)) == document


def test_the_layout_of_a_document() -> None:
    document = {
        "list": [{"id": 1, "in": {"x": {"y": 1}}}, {"id": 2}],
        "table": {"b": {"c": {"d": 1}}, "small": {"x": 1, "y z": [True, "t"]}, "long": ["x" * 60, "y" * 60]},
        "parent": {"child": {"deep": {"x": 1}}},
        "empty": {},
        "top": 1.5,
        "when": [datetime(2026, 1, 2, 3, 4, 5), date(2026, 1, 2), time(3, 4)],  # noqa: DTZ001
    }
    assert toml_text(document).splitlines() == [
        "top = 1.5",
        "when = [2026-01-02T03:04:05, 2026-01-02, 03:04:00]",
        "",
        "[[list]]",
        "id = 1",
        "",
        "[list.in]",
        "x = { y = 1 }",
        "",
        "[[list]]",
        "id = 2",
        "",
        "[table]",
        'small = { x = 1, "y z" = [true, "t"] }',
        "long = [",
        f'  "{"x" * 60}",',
        f'  "{"y" * 60}",',
        "]",
        "",
        "[table.b]",
        "c = { d = 1 }",
        "",
        "[parent.child]",
        "deep = { x = 1 }",
        "",
        "[empty]",
    ]


def test_what_toml_has_no_word_for_is_refused() -> None:
    with pytest.raises(TypeError, match="NoneType"):
        inline([None])
