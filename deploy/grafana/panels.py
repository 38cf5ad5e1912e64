"""The parts of a Grafana dashboard (schema of Grafana 11), so that what all panels have in common is said once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

#: As deploy/grafana/provisioning/datasources names it.
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
WIDTH = 24
#: How often a rate is taken anew: Grafana's own choice, never less than four scrapes.
RATE = "$__rate_interval"
GREEN, ORANGE, RED = "green", "orange", "red"


def query(expr: str, legend: str = "") -> Json:
    """One PromQL expression; ``legend`` is Grafana's ``{{label}}`` template."""
    return {"datasource": DATASOURCE, "expr": expr, "legendFormat": legend or "__auto", "range": True}


def quantiles(name: str, by: str = "", where: str = "") -> list[Json]:
    """The median and the slowest twentieth of a histogram."""
    labels = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    series = f"{name}_bucket{{{where}}}" if where else f"{name}_bucket"
    return [
        query(f"histogram_quantile({share}, sum by ({labels}) (rate({series}[{RATE}])))", legend + words)
        for share, words in ((0.5, "median"), (0.95, "95 %"))
    ]


def _steps(warn: float | None, alarm: float | None, calm: str = GREEN) -> Json:
    steps: list[Json] = [{"color": calm, "value": None}]
    if warn is not None:
        steps.append({"color": ORANGE, "value": warn})
    if alarm is not None:
        steps.append({"color": RED, "value": alarm})
    return {"mode": "absolute", "steps": steps}


def stat(
    title: str,
    expr: str,
    unit: str = "short",
    *,
    text: str = "",
    warn: float | None = None,
    alarm: float | None = None,
    width: int = 4,
    decimals: int | None = None,
) -> Json:
    """One large number; from ``warn`` on it is orange, from ``alarm`` on red."""
    defaults: Json = {"unit": unit, "thresholds": _steps(warn, alarm), "color": {"mode": "thresholds"}}
    if decimals is not None:
        defaults["decimals"] = decimals
    return {
        "type": "stat", "title": title, "description": text, "datasource": DATASOURCE,
        "targets": _lettered([{**query(expr), "range": False, "instant": True}]),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "colorMode": "value", "graphMode": "none", "justifyMode": "auto", "textMode": "auto", "wideLayout": True,
            "orientation": "auto", "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
        "gridPos": {"w": width, "h": 4},
    }  # fmt: skip


def graph(
    title: str,
    targets: Sequence[Json],
    unit: str = "short",
    *,
    text: str = "",
    stacked: bool = False,
    alarm: float | None = None,
    width: int = 12,
) -> Json:
    """Lines over time; at ``alarm`` stands a red line."""
    custom = {
        "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "showPoints": "never", "spanNulls": False,
        "fillOpacity": 25 if stacked else 8, "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "off" if alarm is None else "line"}, "axisPlacement": "auto",
    }  # fmt: skip
    defaults = {
        "unit": unit, "min": 0, "custom": custom, "thresholds": _steps(None, alarm, "transparent"),
        "color": {"mode": "palette-classic"},
    }  # fmt: skip
    return {
        "type": "timeseries", "title": title, "description": text, "datasource": DATASOURCE,
        "targets": _lettered(targets), "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "gridPos": {"w": width, "h": 8},
    }  # fmt: skip


def bars(title: str, expr: str, legend: str, unit: str = "short", *, text: str = "", width: int = 12) -> Json:
    """One bar for each label, of the whole range shown."""
    defaults = {"unit": unit, "min": 0, "thresholds": _steps(None, None), "color": {"mode": "palette-classic"}}
    return {
        "type": "bargauge", "title": title, "description": text, "datasource": DATASOURCE,
        "targets": _lettered([{**query(expr, legend), "range": False, "instant": True}]),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "displayMode": "basic", "orientation": "horizontal", "showUnfilled": True, "valueMode": "color",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
        "gridPos": {"w": width, "h": 8},
    }  # fmt: skip


def alerts(title: str, width: int = 12) -> Json:
    """What fires now."""
    return {
        "type": "alertlist", "title": title, "datasource": DATASOURCE,
        "options": {
            "viewMode": "list", "maxItems": 20, "sortOrder": 3, "groupMode": "default", "groupBy": [],
            "dashboardAlerts": False, "alertName": "", "alertInstanceLabelFilter": "", "datasource": "Prometheus",
            "stateFilter": {"firing": True, "pending": True, "noData": False, "normal": False, "error": True},
        },
        "gridPos": {"w": width, "h": 8},
    }  # fmt: skip


def row(title: str) -> Json:
    return {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"w": WIDTH, "h": 1}}


def _lettered(targets: Sequence[Json]) -> list[Json]:
    return [{**target, "refId": chr(ord("A") + place)} for place, target in enumerate(targets)]


def board(uid: str, title: str, text: str, panels: Sequence[Json], *, by_provider: bool = True) -> Json:
    """A dashboard; its panels are laid out from left to right, each row as high as its highest."""
    variables = [_provider_variable()] if by_provider else []
    return {
        "uid": f"gpubroker-{uid}", "title": f"GPU Broker: {title}", "description": text, "tags": ["gpubroker"],
        "schemaVersion": 39, "version": 1, "editable": False, "graphTooltip": 1, "timezone": "browser",
        "refresh": "30s", "time": {"from": "now-6h", "to": "now"}, "timepicker": {}, "fiscalYearStartMonth": 0,
        "annotations": {"list": []}, "templating": {"list": variables}, "panels": _laid_out(panels),
        "links": [{
            "type": "dashboards", "title": "GPU Broker", "tags": ["gpubroker"], "asDropdown": True,
            "includeVars": True, "keepTime": True, "icon": "external link", "targetBlank": False, "tooltip": "",
        }],
    }  # fmt: skip


def _provider_variable() -> Json:
    values = "label_values(gpu_listing_machines, provider)"
    return {
        "type": "query", "name": "provider", "label": "Provider", "datasource": DATASOURCE, "definition": values,
        "query": {"query": values, "refId": "providers"}, "refresh": 2, "sort": 1, "multi": True, "includeAll": True,
        "allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}, "hide": 0, "options": [], "regex": "",
    }  # fmt: skip


def _laid_out(panels: Sequence[Json]) -> list[Json]:
    placed, x, y, height = [], 0, 0, 0
    for number, panel in enumerate(panels, 1):
        size = panel["gridPos"]
        if x + size["w"] > WIDTH:
            x, y, height = 0, y + height, 0
        placed.append({**panel, "id": number, "gridPos": {**size, "x": x, "y": y}})
        x, height = x + size["w"], max(height, size["h"])
    return placed
