"""The little of Grafana's dashboard JSON that we use (classic schema 39: Grafana 10.4 and later import it).

A dashboard is rows of panels; places on the grid of 24 columns are worked out from the panels' widths.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final

from supervisord_cp.model.base import Value

Json = dict[str, Any]
COLUMNS: Final = 24
SCHEMA_VERSION: Final = 39
DATASOURCE: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}
GREEN: Final = "green"
AMBER: Final = "orange"
RED: Final = "red"


class View(StrEnum):
    """How a panel shows its data."""

    LINES = "timeseries"
    NUMBER = "stat"
    STATES = "state-timeline"
    TABLE = "table"
    BARS = "bargauge"
    STACKS = "barchart"
    """A bar for each value of the one label that is left, and in it a part for each query."""


class Query(Value, frozen=True, kw_only=True):
    """One PromQL expression of a panel. `legend` is Grafana's `{{label}}` text."""

    expr: str
    legend: str = ""


class Step(Value, frozen=True, kw_only=True):
    """From `at` on a value has this colour; None is the lowest."""

    at: float | None
    color: str


class Panel(Value, frozen=True, kw_only=True):
    """One panel. `unit` is Grafana's id of a unit, `width` columns of 24, `height` grid rows."""

    title: str
    description: str
    queries: tuple[Query, ...]
    view: View = View.LINES
    unit: str = "short"
    width: int = 8
    height: int = 8
    stacked: bool = False
    low: float | None = 0
    high: float | None = None
    decimals: int | None = None
    steps: tuple[Step, ...] = ()
    states: tuple[tuple[float, str, str], ...] = ()
    """Of a state timeline: (value, text, colour)."""
    hidden_columns: tuple[str, ...] = ("Time", "__name__", "job", "instance")


class Row(Value, frozen=True, kw_only=True):
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


class Variable(Value, frozen=True, kw_only=True):
    """A choice at the top of the dashboard: all values of a label."""

    name: str
    metric: str
    label: str


class Annotation(Value, frozen=True, kw_only=True):
    """Moments that are marked in every graph: where the expression has a sample."""

    name: str
    expr: str
    title: str
    text: str
    color: str = "blue"


class Dashboard(Value, frozen=True, kw_only=True):
    """One dashboard; `uid` is also its file's name."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    annotations: tuple[Annotation, ...] = ()

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All of them."""
        return tuple(panel for row in self.rows for panel in row.panels)


def render(dashboard: Dashboard) -> Json:
    """As Grafana imports it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["supervisord-cp", "vllm"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [_links()],
        "templating": {"list": [_datasource(), *(_variable(one) for one in dashboard.variables)]},
        "annotations": {"list": [_annotation(one) for one in dashboard.annotations]},
        "panels": list(_placed(dashboard.rows)),
    }


def _placed(rows: tuple[Row, ...]) -> Iterator[Json]:
    identity, top = 1, 0
    for row in rows:
        place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        yield {
            "id": identity,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": place,
            "panels": [],
        }
        identity, top, left, line = identity + 1, top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                left, top, line = 0, top + line, 0
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            yield {"id": identity, "gridPos": place, **_panel(panel)}
            identity, left, line = identity + 1, left + panel.width, max(line, panel.height)
        top += line


def _panel(panel: Panel) -> Json:
    table = panel.view in (View.TABLE, View.STACKS)
    out: Json = {
        "type": panel.view,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": DATASOURCE,
                "expr": query.expr,
                "legendFormat": query.legend or "__auto",
                "instant": table or panel.view is View.BARS,
                "range": not (table or panel.view is View.BARS),
                "format": "table" if table else "time_series",
            }
            for number, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel.view),
    }
    if table:
        hidden = dict.fromkeys(panel.hidden_columns, True)
        # merged, the values of several queries are told apart by these names only
        names = {
            f"Value #{target['refId']}": query.legend
            for target, query in zip(out["targets"], panel.queries, strict=True)
            if query.legend
        }
        out["transformations"] = [
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {"excludeByName": hidden, "indexByName": {}, "renameByName": names},
            },
        ]
    return out


def _defaults(panel: Panel) -> Json:
    steps = panel.steps or (Step(at=None, color=GREEN),)
    out: Json = {
        "unit": panel.unit,
        "color": {"mode": "thresholds" if panel.view in (View.NUMBER, View.BARS) else "palette-classic"},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": step.at, "color": step.color} for step in steps],
        },
        "custom": _custom(panel),
    }
    for key, value in (("min", panel.low), ("max", panel.high), ("decimals", panel.decimals)):
        if value is not None:
            out[key] = value
    if panel.states:
        options = {
            f"{value:g}": {"index": index, "text": text, "color": color}
            for index, (value, text, color) in enumerate(panel.states)
        }
        out["mappings"] = [{"type": "value", "options": options}]
    return out


def _custom(panel: Panel) -> Json:
    if panel.view is View.LINES:
        return {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 25 if panel.stacked else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    return {"fillOpacity": 80, "lineWidth": 0} if panel.view in (View.STATES, View.STACKS) else {}


def _options(view: View) -> Json:
    match view:
        case View.LINES:
            legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
            return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
        case View.STATES:
            legend = {"displayMode": "list", "placement": "bottom", "showLegend": True}
            return {"mergeValues": True, "showValue": "never", "rowHeight": 0.85, "legend": legend}
        case View.TABLE:
            return {"showHeader": True, "cellHeight": "sm"}
        case View.NUMBER:
            calc = {"calcs": ["lastNotNull"], "fields": "", "values": False}
            return {"reduceOptions": calc, "colorMode": "value", "graphMode": "area", "textMode": "auto"}
        case View.BARS:
            calc = {"calcs": ["lastNotNull"], "fields": "", "values": False}
            return {"reduceOptions": calc, "orientation": "horizontal", "displayMode": "gradient"}
        case View.STACKS:
            legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
            return {
                "orientation": "horizontal",
                "stacking": "normal",
                "showValue": "auto",
                "legend": legend,
                "tooltip": {"mode": "multi", "sort": "none"},
            }


def _datasource() -> Json:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "refresh": 1,
    }


def _variable(variable: Variable) -> Json:
    query = f"label_values({variable.metric}, {variable.label})"
    return {
        "name": variable.name,
        "label": variable.name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "values"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _annotation(annotation: Annotation) -> Json:
    return {
        "name": annotation.name,
        "datasource": DATASOURCE,
        "enable": True,
        "expr": annotation.expr,
        "titleFormat": annotation.title,
        "textFormat": annotation.text,
        "iconColor": annotation.color,
        "step": "15s",
    }


def _links() -> Json:
    return {
        "title": "Fleet of vLLM",
        "type": "dashboards",
        "tags": ["supervisord-cp"],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
    }
