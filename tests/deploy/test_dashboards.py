"""Dashboards: made by their program, loadable, and every query is right and names what exists."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpubroker.metrics.catalogue import ALL, HISTOGRAM
from tests.deploy.promql import named
from tests.deploy.test_alerts import rules
from tests.promtool import promtool

GRAFANA = Path(__file__).resolve().parent.parent.parent / "deploy" / "grafana"
NAMES = ("api", "lifecycle", "money", "overview", "providers")
#: Grafana puts these in.
VARIABLES = {"$__rate_interval": "5m", "$__range_s": "3600", "$__range": "1h", "$provider": "vastai|tensordock"}
#: Prometheus' own: of a target, and of every series scraped from it.
FOREIGN = {"up": {"job", "instance"}}


def board(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / "dashboards" / f"{name}.json").read_text())
    return found


def asked(name: str) -> list[str]:
    """Every query of a dashboard, as Prometheus gets it."""
    queries = [target["expr"] for panel in board(name)["panels"] for target in panel.get("targets", [])]
    found = []
    for query in queries:
        for variable, value in VARIABLES.items():
            query = query.replace(variable, value)
        found.append(query)
    return found


def exists() -> dict[str, set[str]]:
    """Series by name, with their labels."""
    found = {name: set(labels) for name, labels in FOREIGN.items()}
    for spec in ALL.values():
        labels = set(spec.labels)
        if spec.kind == HISTOGRAM:
            found |= {f"{spec.name}_bucket": labels | {"le"}, f"{spec.name}_sum": labels, f"{spec.name}_count": labels}
        else:
            found[spec.name] = labels
    return found


def unknown(expression: str) -> list[str]:
    """What an expression names and does not exist: series, their labels, labels to group by."""
    known, words = exists(), named(expression)
    wrong = [name for name in words.metrics if name not in known]
    for name, labels in words.metrics.items():
        wrong += [f"{name}{{{label}}}" for label in sorted(labels - known.get(name, labels))]
    there = set().union(*(known.get(name, set()) for name in words.metrics))
    return wrong + [f"by ({label})" for label in sorted(words.grouped_by - there)]


def test_the_files_are_what_the_program_makes(tmp_path: Path) -> None:
    made = subprocess.run([sys.executable, "-B", GRAFANA / "build.py", tmp_path], check=False, capture_output=True)
    assert made.returncode == 0, made.stderr
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        path.name: path.read_text() for path in (GRAFANA / "dashboards").iterdir()
    }
    assert {path.stem for path in tmp_path.iterdir()} == set(NAMES)


def test_every_query_is_promql(tmp_path: Path) -> None:
    queries = [query for name in NAMES for query in asked(name)]
    assert len(queries) > 60
    group = {"name": "q", "rules": [{"record": f"q:{number}", "expr": query} for number, query in enumerate(queries)]}
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [group]}))
    checked = promtool("check", "rules", tmp_path / "queries.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(queries)} rules found" in checked.stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_names_only_what_exists(name: str) -> None:
    assert {query: wrong for query in asked(name) if (wrong := unknown(query))} == {}
    variables = [variable["definition"] for variable in board(name)["templating"]["list"]]
    of_variables = {match for text in variables for match in re.findall(r"^label_values\((\w+), provider\)$", text)}
    assert of_variables <= exists().keys()
    assert len(of_variables) == len(variables)


def test_alert_rules_name_only_what_exists() -> None:
    assert {name: wrong for name, rule in rules().items() if (wrong := unknown(rule["expr"]))} == {}


def test_every_metric_is_shown_or_watched() -> None:
    expressions = [query for name in NAMES for query in asked(name)] + [rule["expr"] for rule in rules().values()]
    used = set().union(*(named(expression).metrics for expression in expressions))
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used} | used
    assert ALL.keys() - shown == set()


def test_what_does_not_exist_is_found() -> None:
    nothing = "sum by (provider) (rate(gpu_nothing_total[5m]))"
    assert unknown(nothing) == ["gpu_nothing_total", "by (provider)"]
    assert unknown('gpu_queue_depth{provider="x"}') == ["gpu_queue_depth{provider}"]
    assert unknown('max by (route) (gpu_queue_depth{queue="}{"}) > bool 1') == ["by (route)"]
    assert unknown("gpu_ssh_verify_duration_seconds") == ["gpu_ssh_verify_duration_seconds"]
    with pytest.raises(ValueError, match="what is at 3"):
        named("up ; up")


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_can_be_provisioned(name: str) -> None:
    found = board(name)
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    uid = sources[0]["uid"]
    panels = found["panels"]
    assert found["uid"] == f"gpubroker-{name}"
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    assert {panel["datasource"]["uid"] for panel in panels if panel["type"] != "row"} == {uid}
    places = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24
    queried = [panel for panel in panels if panel.get("targets")]
    untold = [panel["title"] for panel in queried if not panel["fieldConfig"]["defaults"]["unit"]]
    assert untold == []
