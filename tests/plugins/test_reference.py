"""docs/policies/values.md is what policies are given, today."""

import re
from pathlib import Path

from supervisord_cp import policy
from supervisord_cp.plugin_host.reference import reference

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_the_values_are() -> None:
    written = (DOCS / "policies" / "values.md").read_text()
    assert written == reference(), "python -m supervisord_cp.plugin_host.reference > docs/policies/values.md"


def test_inherited_fields_properties_and_methods_are_told() -> None:
    text = reference()
    assert "Has what [Context](#context) has, and:" in text
    assert "| `instance` | `RoutedInstance` |" in text
    assert "| `full` | `bool` |" in text
    assert "| `query(name, candidate=None)` | `Signal` |" in text
    assert '* `READY` = `"ready"`' in text


def test_what_a_field_holds_has_a_section_of_its_own() -> None:
    text = reference()
    sections = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))
    values = {name for name in policy.__all__ if isinstance(vars(policy).get(name), type)}
    held = {
        word
        for kind in re.findall(r"^\| `[^`]+` \| `([^`]+)`", text, re.MULTILINE)
        for word in re.findall(r"\w+", kind)
    }
    assert held & values - sections == {"ReasonCode", "SignalSource"}
