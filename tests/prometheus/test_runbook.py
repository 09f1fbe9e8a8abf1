"""Every alert has an entry in the runbook that says how urgent it is, and every entry an alert."""

import re

import pytest

from tests.shape.sources import ROOT

ALERTS = dict(
    re.findall(
        r"- alert: (\w+)\n.*?severity: (\w+)",
        (ROOT / "packaging/prometheus/alerts.yml").read_text(),
        re.DOTALL,
    )
)
ENTRIES = dict(re.findall(r"^## (\w+)\n\n\*(\w+)\.\*", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE))


def test_entries_are_the_alerts() -> None:
    assert ENTRIES == ALERTS


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_leads_to_its_entry(name: str) -> None:
    text = (ROOT / "packaging/prometheus/alerts.yml").read_text()
    assert f"runbook.md#{name.lower()}" in text
