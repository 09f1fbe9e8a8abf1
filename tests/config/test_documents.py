"""The example and the reference have every key of the schema."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import tomli

from supervisord_cp.config.containers import Many, Maybe
from supervisord_cp.config.derive import layout, table_of
from supervisord_cp.config.findings import Level
from supervisord_cp.config.load import load, read_file
from supervisord_cp.config.reference import field_texts, reference
from supervisord_cp.config.schema import Config
from supervisord_cp.config.tables import ByName, Table
from supervisord_cp.model.fleet import PolicyUse

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config.example.toml"


def keys_in(table: Table, raw: dict[str, object], heading: str) -> Counter[tuple[str, str]]:
    """How often each key of the schema is in a document, by its table's heading."""
    found: Counter[tuple[str, str]] = Counter()
    for name, value in raw.items():
        found[heading, name] += 1
        kind = table.keys[name].kind
        kind = kind.kind if isinstance(kind, Maybe) else kind
        path = f"{heading}.{name}" if heading else name
        if isinstance(kind, Table):
            assert isinstance(value, dict)
            found += keys_in(kind, value, path)
        elif isinstance(kind, ByName):
            assert isinstance(value, dict)
            for item in value.values():
                found += keys_in(kind.table, item, f"{path}.NAME")
        elif isinstance(kind, Many) and isinstance(kind.item, Table):
            assert isinstance(value, list)
            for item in value:
                found += keys_in(kind.item, item, path)
    return found


def test_the_example_has_every_key_once() -> None:
    text = re.sub(r"(?m)^# (?=[a-z_]+ += )", "", EXAMPLE.read_text())
    found = keys_in(table_of(Config), tomli.loads(text), "")
    expected = {("", name) for name in table_of(Config).keys}
    for heading, table in layout().items():
        expected |= {(heading.strip("[]"), name) for name in table.keys}
    assert set(found) == expected
    assert {key for key, count in found.items() if count > 1} == set()


def test_the_example_is_fine_as_it_is() -> None:
    reading = read_file(EXAMPLE)
    assert reading.problems(Level.ERROR) == ()
    assert reading.problems(Level.WARNING) == ()
    assert load(EXAMPLE).deployments[0].name == "chat"


def test_the_examples_alternatives_can_be_used() -> None:
    text = EXAMPLE.read_text()
    for line in re.findall(r"(?m)^# ([a-z_]+ += .*)$", text):
        (key,) = tomli.loads(line)
        assert key in {"command", "per_replica", "ready_path", "replicas", "tolerance"}


def test_every_key_is_documented() -> None:
    for table in (*layout().values(), table_of(PolicyUse)):
        texts = field_texts(table.struct)
        assert table.keys.keys() <= texts.keys(), table.struct
        assert all(text.endswith((".", '"')) for text in texts.values()), table.struct


def test_the_reference_has_every_key() -> None:
    text = reference()
    for heading, table in layout().items():
        assert f"`{heading}`" in text
        rows = text.partition(f"`{heading}`")[2].partition("\n## ")[0]
        for name in table.keys:
            assert f"\n| `{name}` |" in rows
    assert "A change applies at once." in text.partition("| `gpu_budget` |")[2].partition("\n")[0]


def test_the_reference_is_up_to_date() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "supervisord_cp.config.reference"], check=True, capture_output=True, text=True
    ).stdout
    assert made == (ROOT / "docs" / "configuration.md").read_text(), (
        "run: python -m supervisord_cp.config.reference > docs/configuration.md"
    )
