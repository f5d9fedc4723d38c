"""Metrics, alerts, dashboard and runbook belong together: what one names, the others have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types

from common.codec import loads
from tests.metric_names import Metric, all_metrics, asked_for, process_series

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "ops" / "compose"
METRICS = ROOT / "docs" / "metrics.md"
RUNBOOK = ROOT / "docs" / "runbook.md"
TITLES = {
    "ingress": "Ingress", "every process": "Every process", "token": "Token worker", "fetch": "Fetch worker",
    "reconcile": "Reconcile worker", "relay": "Relay",
}  # fmt: skip
WORKER_JOBS = {"token", "fetch", "reconcile", "relay"}


def rules() -> list[dict[str, Any]]:
    """Alerts and recordings."""
    told = yaml.safe_load((COMPOSE / "prometheus" / "alerts.yml").read_text())
    return [rule for group in told["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    dashboard: Any = loads((COMPOSE / "grafana" / "dashboards" / "flow.json").read_bytes())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    """Whatever is asked of Prometheus."""
    of_panels = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [*(rule["expr"] for rule in rules()), *of_panels]


@pytest.fixture
async def metrics() -> list[Metric]:
    return await all_metrics()


async def test_every_metric_is_described_and_nothing_else(metrics: list[Metric]) -> None:
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", METRICS.read_text(), re.MULTILINE | re.DOTALL))
    written = {title: re.findall(r"^\| `gateway_.*$", text, re.MULTILINE) for title, text in sections.items()}
    assert written == {
        title: [one.row for one in metrics if one.shown_by == shown_by] for shown_by, title in TITLES.items()
    }


async def test_names_have_units_and_no_label_is_without_bound(metrics: list[Metric]) -> None:
    few = {"outcome", "verdict", "queue", "kind", "reason", "state", "host", "publisher", "became", "status", "type",
           "heard", "connection"}  # fmt: skip
    assert {label for one in metrics for label in one.labels} <= few
    assert [one.name for one in metrics if "connection" in one.labels] == ["gateway_connection_silence_seconds"]
    assert all(one.name.startswith("gateway_") for one in metrics)
    assert all(one.name.endswith("_seconds") for one in metrics if one.kind == "histogram")
    assert len({one.name for one in metrics}) == len(metrics)


async def test_every_expression_asks_for_what_there_is(metrics: list[Metric]) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    there = {series for one in metrics for series in one.series} | process_series() | recorded | {"up"}
    asked = {name for expression in expressions() for name in asked_for(expression)}
    assert asked - there == set()
    assert recorded <= asked


async def test_every_label_value_that_is_asked_for_may_come(metrics: list[Metric]) -> None:
    buckets = {one.name: one.buckets for one in metrics if one.buckets}
    text = " ".join(expressions())
    asked = re.findall(r'(\w+)_bucket\{le="([^"]+)"', text)
    assert len(asked) == len(re.findall(r"\ble=", text)) > 0, "none is written in another way"
    for name, bound in asked:
        assert bound in buckets[name]


def test_names_are_found_in_expressions() -> None:
    """What the tests above stand on."""
    expression = 'sum by (le, a_b) (rate(x_bucket{q="y_z"}[5m])) > on() max(up) - y:z_w:r5m'
    assert asked_for(expression) == {"x_bucket", "up", "y:z_w:r5m"}


def test_every_alert_has_its_page_in_the_runbook() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    headings = re.findall(r"^### (\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert headings == [alert["alert"] for alert in alerts]
    for alert in alerts:
        assert alert["labels"]["severity"] in ("info", "warning", "critical")
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}"


def test_every_alert_has_been_seen_to_fire() -> None:
    """promtool runs them, in `make lint`."""
    told = yaml.safe_load((ROOT / "tests" / "data" / "prometheus" / "alerts_test.yml").read_text())
    fired = {
        one["alertname"] for case in told["tests"] for one in case["alert_rule_test"] if one["exp_alerts"]
    }  # fmt: skip
    assert fired == {rule["alert"] for rule in rules() if "alert" in rule}


def test_every_replica_of_every_role_is_scraped() -> None:
    told = yaml.safe_load((COMPOSE / "prometheus" / "prometheus.yml").read_text())
    ports = {}
    for job in told["scrape_configs"]:
        (found,) = job["dns_sd_configs"]
        assert (found["names"], found["type"]) == ([job["job_name"]], "A")
        ports[job["job_name"]] = found["port"]
    assert ports == {"ingress": 9090, "rabbitmq": 15692, **dict.fromkeys(WORKER_JOBS, 9100)}


def test_the_dashboard_is_grafanas_and_knows_its_source() -> None:
    dashboard: Any = loads((COMPOSE / "grafana" / "dashboards" / "flow.json").read_bytes())
    provisioning = COMPOSE / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert dashboard["schemaVersion"] >= 39
    assert dashboard["uid"]
    known = {"type": "prometheus", "uid": source["uid"]}
    for panel in panels():
        assert panel["datasource"] == known
        assert [target["datasource"] for target in panel["targets"]] == [known] * len(panel["targets"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_no_panels_lie_over_each_other() -> None:
    dashboard: Any = loads((COMPOSE / "grafana" / "dashboards" / "flow.json").read_bytes())
    taken = set[tuple[int, int]]()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_every_line_that_is_an_error_is_in_the_runbook() -> None:
    written = RUNBOOK.read_text()
    errors = {
        name
        for folder in ("common", "ingress", "workers")
        for file in (ROOT / folder).rglob("*.py")
        for name in re.findall(r'log\.(?:error|exception)\(\s*"([a-z_.]+)"', file.read_text())
    }
    assert len(errors) > 10
    assert [name for name in sorted(errors) if f"`{name}`" not in written] == []
