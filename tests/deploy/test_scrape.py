"""What a running broker shows: scraped from the embedded stack after a session's whole life, web and worker being
processes of their own."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from gpubroker.metrics.catalogue import ALL, COUNTER, GROUPS, HISTOGRAM, Spec
from tests.fixtures import WithSchema
from tests.promtool import promtool
from tests.stack import Stack, running

# All of it on one worker: what the module's fixture starts is dear.
pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("scrape")]
DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(gpu_\w+)` \| (\w+) \| ([^|]*)\| (.*) \|$", re.MULTILINE)


def ask(stack: Stack, method: str, path: str, body: Any = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60)
    try:
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def until(question: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < end, what
        time.sleep(0.2)
    return answer


def lived(stack: Stack) -> None:
    """A session from its order to the proof that its machine is gone."""
    offers = until(
        lambda: json.loads(ask(stack, "GET", "/api/v1/inventory?min_vram=8")[1]).get("offers"), "an inventory"
    )
    order = {"consumer_id": "me", "offer_id": offers[0]["id"], "workload_type": "batch", "reservation_hours": 1}
    status, made = ask(stack, "POST", "/api/v1/sessions", order)
    assert status == 201, made
    path = f"/api/v1/sessions/{json.loads(made)['session']['id']}"
    until(lambda: json.loads(ask(stack, "GET", path)[1])["status"] == "running", "the session runs")
    assert ask(stack, "DELETE", path)[0] in (200, 202)
    until(lambda: json.loads(ask(stack, "GET", path)[1])["status"] == "stopped", "the session is over")


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory, with_schema: WithSchema) -> Iterator[str]:
    with running(with_schema(tmp_path_factory.mktemp("scrape") / "data")) as stack:
        stack.wait_for("GPU Broker is ready", 180)
        lived(stack)
        # Each process adds what it has counted every few seconds; the destroy is the last of the worker's.
        last = re.compile(r'^gpu_destroy_duration_seconds_count{provider="\w+"} 1\.0$', re.MULTILINE)
        until(lambda: last.search(ask(stack, "GET", "/metrics")[1]), "the worker's counts")
        yield ask(stack, "GET", "/metrics")[1]


@pytest.fixture
def families(scraped: str) -> dict[str, Metric]:
    """By name, as it stands in the text: the parser takes the end off a counter's."""
    found = text_string_to_metric_families(scraped)
    return {f"{each.name}_total" if each.type == COUNTER else each.name: each for each in found}


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    family = next(f for key, f in families.items() if name == key or name.removesuffix("_count") == key)
    return sum(each.value for each in family.samples if each.name == name and each.labels.items() >= labels.items())


def test_promtool_finds_nothing_to_object_to(scraped: str) -> None:
    checked = promtool("check", "metrics", given=scraped)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_the_scrape_has_what_the_catalogue_names_and_nothing_else(families: dict[str, Metric]) -> None:
    assert {name: (each.type, each.documentation) for name, each in families.items()} == {
        spec.name: (spec.kind, spec.text) for spec in ALL.values()
    }
    for name, family in families.items():
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == set(ALL[name].labels), sample


def test_the_document_says_what_the_catalogue_says() -> None:
    text = DOCUMENT.read_text()

    def row(spec: Spec) -> tuple[str, str, str, str]:
        return spec.name, spec.kind, ", ".join(f"`{label}`" for label in spec.labels), spec.text

    for heading, specs in GROUPS.items():
        section = re.search(rf"^## {heading}\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
        assert section is not None, heading
        found = [(name, kind, labels.strip(), meaning) for name, kind, labels, meaning in ROW.findall(section[1])]
        assert found == [row(spec) for spec in specs]
    labels = {label for spec in ALL.values() for label in spec.labels}
    explained = set(
        re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`\w+`[^|]*)\|", text.split("## What the labels")[1], re.M)))
    )
    assert labels - explained == set()


def test_web_and_worker_add_to_one_scrape(families: dict[str, Metric]) -> None:
    assert value(families, "gpu_http_requests_total", method="POST", route="/api/v1/sessions", status="201") == 1
    assert value(families, "gpu_http_request_duration_seconds_count", method="POST", route="/api/v1/sessions") == 1
    assert value(families, "gpu_provider_calls_total", operation="create", outcome="ok") == 1
    assert value(families, "gpu_provider_call_duration_seconds_count", operation="create") == 1
    assert value(families, "gpu_offer_fetches_total", outcome="applied") >= 1
    assert value(families, "gpu_listings_total", outcome="complete") >= 1


def test_a_sessions_life_shows(families: dict[str, Metric]) -> None:
    assert value(families, "gpu_session_provisioning_duration_seconds_count") == 1
    assert value(families, "gpu_ssh_verify_duration_seconds_count") == 1
    assert value(families, "gpu_destroy_duration_seconds_count") == 1
    assert value(families, "gpu_sessions_ended_total", reason="deleted") == 1
    for name in ("gpu_sessions_past_end", "gpu_oldest_unproved_destroy_seconds", "gpu_orphans_present"):
        assert {each.value for each in families[name].samples} == {0.0}, name
    assert value(families, "gpu_queue_up") == 1
    assert {each.labels["queue"] for each in families["gpu_queue_depth"].samples} >= {"tick", "destroy", "ssh"}
    assert 0 <= value(families, "gpu_scheduler_tick_age_seconds") < 60


def test_histograms_are_cumulative(families: dict[str, Metric]) -> None:
    histograms = {spec.name for spec in ALL.values() if spec.kind == HISTOGRAM}
    assert len(histograms) > 4
    for name in histograms:
        by_series: dict[str, list[float]] = {}
        for each in families[name].samples:
            key = str(sorted((label, text) for label, text in each.labels.items() if label != "le"))
            by_series.setdefault(key, []).extend([each.value] * (each.name == f"{name}_bucket"))
        assert all(values == sorted(values) for values in by_series.values()), name
