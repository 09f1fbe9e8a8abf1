"""The dashboards as files: generated, within the grid, with units, descriptions and known metrics."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest

from supervisord_cp.obs.catalog import AGENT, CENTRAL, ROUTER
from supervisord_cp.obs.dashboards.files import DASHBOARDS, files
from supervisord_cp.obs.dashboards.grafana import Dashboard, Panel, View

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "packaging" / "grafana" / "dashboards"
# Grafana's ids: packages/grafana-data/src/valueFormats/categories.ts.
UNITS = {"short", "s", "h", "percentunit", "reqps", "bytes", "celsius", "watt", "currencyUSD"}
PANELS = [
    pytest.param(panel, id=f"{board.uid}: {panel.title}") for board in DASHBOARDS for panel in board.panels
]
PLACED = [panel for text in files().values() for panel in json.loads(text)["panels"]]


def test_the_files_are_those_that_are_generated() -> None:
    shipped = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert shipped == files(), "python -m supervisord_cp.obs.dashboards packaging/grafana/dashboards"


@pytest.mark.parametrize("name", files())
def test_panels_lie_within_the_grid_and_not_upon_each_other(name: str) -> None:
    places = [panel["gridPos"] for panel in json.loads(files()[name])["panels"]]
    for place in places:
        assert place["x"] >= 0 and place["x"] + place["w"] <= 24
    for one, other in combinations(places, 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)


@pytest.mark.parametrize("name", files())
def test_panels_have_ids_of_their_own(name: str) -> None:
    ids = [panel["id"] for panel in json.loads(files()[name])["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows(panel: Panel) -> None:
    assert panel.description.endswith(".")
    assert panel.unit in UNITS
    assert panel.queries


def test_the_parts_of_a_bar_have_the_names_of_its_queries() -> None:
    """As columns of one table, which is all that Grafana's bar chart takes."""
    stacks = [panel for panel in PLACED if panel["type"] == View.STACKS]
    assert stacks
    for panel in stacks:
        assert {target["format"] for target in panel["targets"]} == {"table"}
        merge, organize = panel["transformations"]
        names = organize["options"]["renameByName"]
        assert merge["id"] == "merge"
        assert names == {f"Value #{one['refId']}": one["legendFormat"] for one in panel["targets"]}
        assert len(set(names.values())) == len(names) > 1


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.uid)
def test_queries_name_metrics_that_are_exported_and_labels_that_they_have(board: Dashboard) -> None:
    known = {metric.full_name: metric for metric in (*CENTRAL, *ROUTER, *AGENT)}
    for panel in board.panels:
        for query in panel.queries:
            for name, matchers in re.findall(r"(supervisord_cp_\w+)(?:\{([^}]*)\})?", query.expr):
                metric = known.get(name) or known[re.sub(r"_(bucket|sum|count)$", "", name)]
                labels = set(re.findall(r"(\w+)=", matchers))
                assert labels <= {*metric.labels, "router"}, (panel.title, name)


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.uid)
def test_variables_that_are_used_are_there(board: Dashboard) -> None:
    used = {
        name
        for panel in board.panels
        for query in panel.queries
        for name in re.findall(r'"\$(\w+)"', query.expr)
    }
    assert used == {variable.name for variable in board.variables}
