"""``python deploy/grafana/build.py [FOLDER]``: write the dashboards, to ``dashboards`` beside this file by default.

What they show is written here, how it looks in ``panels.py``. The JSON files are never changed by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from panels import RATE, Json, alerts, bars, board, graph, quantiles, query, row, stat

OURS = 'provider=~"$provider"'


def rate(name: str, by: str, where: str = "") -> str:
    series = f"{name}{{{where}}}" if where else name
    return f"sum by ({by}) (rate({series}[{RATE}]))"


def overview() -> Json:
    return board("overview", "Overview", "What runs, what it costs, and whether anything is wrong.", [
        stat("Running", 'sum(gpu_sessions_active{status="running"}) or vector(0)'),
        stat("Starting", 'sum(gpu_sessions_active{status=~"pending|provisioning"}) or vector(0)'),
        stat("Cost per hour", "sum(gpu_cost_dollars_per_hour) or vector(0)", "currencyUSD", decimals=2),
        stat("Past their end", "max(gpu_sessions_past_end)", warn=1, alarm=1,
             text="Sessions whose time is up and whose machine is not proved gone."),
        stat("Oldest unproved destroy", "max(gpu_oldest_unproved_destroy_seconds)", "s", warn=60, alarm=300),
        stat("Scheduler's last tick", "max(gpu_scheduler_tick_age_seconds)", "s", warn=10, alarm=30,
             text="-1: there was none yet."),
        alerts("Alerts"),
        graph("Sessions by status", [query("sum by (status) (gpu_sessions_active)", "{{status}}")], stacked=True),
        graph("Cost per hour by provider", [query("sum by (provider) (gpu_cost_dollars_per_hour)", "{{provider}}")],
              "currencyUSD", stacked=True),
        graph("Sessions ended, by reason", [query(rate("gpu_sessions_ended_total", "reason"), "{{reason}}")], "cps"),
        graph("Offers", [query("sum by (provider) (gpu_offers_available)", "{{provider}}")]),
        graph("Requests by status", [query(rate("gpu_http_requests_total", "status"), "{{status}}")], "reqps",
              stacked=True),
    ], by_provider=False)  # fmt: skip


def lifecycle() -> Json:
    return board("lifecycle", "Lifecycle safety", "No machine is paid for longer than somebody wants it.", [
        stat("Past their end", "max(gpu_sessions_past_end)", warn=1, alarm=1),
        stat("Most overdue", "max(gpu_session_past_end_seconds)", "s", warn=30, alarm=120),
        stat("Oldest unproved destroy", "max(gpu_oldest_unproved_destroy_seconds)", "s", warn=60, alarm=300),
        stat("Orphans present", f"sum(gpu_orphans_present{{{OURS}}})", warn=1, alarm=1),
        stat("Ghosts suspected", f"sum(gpu_ghosts_suspected{{{OURS}}}) or vector(0)", warn=1),
        stat("Sweeps held", f"sum(gpu_sweep_held{{{OURS}}})", warn=1, alarm=1, text="They wait for a person."),
        row("Ends"),
        graph("Past the end", [query("max(gpu_session_past_end_seconds)", "most overdue")], "s", alarm=120),
        graph("Unproved destroys", [
            query(f"sum by (provider, accepted) (gpu_unproved_destroys{{{OURS}}})",
                  "{{provider}}, said yes: {{accepted}}"),
        ], stacked=True),
        graph("From the decision to the proof", quantiles("gpu_destroy_duration_seconds", "provider", OURS), "s"),
        graph("Failed destruction attempts", [
            query(rate("gpu_destroy_failures_total", "provider", OURS), "{{provider}}")], "cps"),
        graph("Sessions ended, by reason", [query(rate("gpu_sessions_ended_total", "reason", OURS), "{{reason}}")],
              "cps", stacked=True),
        graph("Open rentals by state", [query(f"sum by (state) (gpu_rentals_open{{{OURS}}})", "{{state}}")],
              stacked=True),
        row("Starts"),
        graph("From the request to a usable machine",
              quantiles("gpu_session_provisioning_duration_seconds", "provider", OURS), "s"),
        graph("SSH verification", quantiles("gpu_ssh_verify_duration_seconds", "provider", OURS), "s"),
        graph("Failed attempts, by reason", [
            query(rate("gpu_attempts_failed_total", "reason", OURS), "{{reason}}")], "cps", stacked=True),
        graph("SSH never verified; keys put back", [
            query(rate("gpu_ssh_verify_failures_total", "provider", OURS), "{{provider}} never verified"),
            query(rate("gpu_key_repairs_total", "provider", OURS), "{{provider}} keys put back")], "cps"),
        row("Driver and sweeps"),
        graph("How late the driver is", [query("max by (rows) (gpu_due_lag_seconds)", "{{rows}}")], "s", alarm=60),
        graph("Since the scheduler's last tick", [query("max(gpu_scheduler_tick_age_seconds)", "age")], "s", alarm=30),
        graph("Age of the last complete listing", [
            query(f"max by (provider) (gpu_sweep_age_seconds{{{OURS}}})", "{{provider}}")], "s", alarm=900),
        graph("Listings by what came of them", [
            query(rate("gpu_listings_total", "provider, outcome", OURS), "{{provider}} {{outcome}}")], "cps"),
        bars("Orphans and ghosts found in this time",
             f"sum by (provider) (increase(gpu_orphans_detected_total{{{OURS}}}[$__range]) "
             f"+ increase(gpu_ghosts_detected_total{{{OURS}}}[$__range]))", "{{provider}}"),
        graph("What waits for a person", [query("sum by (kind) (gpu_review_open)", "{{kind}}")], stacked=True,
              text="The console's review queue."),
        bars("Sweeps held in this time", f"sum by (provider) (increase(gpu_sweeps_held_total{{{OURS}}}[$__range]))",
             "{{provider}}"),
    ])  # fmt: skip


def money() -> Json:
    cost = f"gpu_cost_dollars_per_hour{{{OURS}}}"
    return board("money", "Money", "What the open rentals cost, and whether the prices hold.", [
        stat("Per hour", f"sum({cost}) or vector(0)", "currencyUSD", decimals=2, width=6),
        stat("Per day at this rate", f"24 * sum({cost}) or vector(0)", "currencyUSD", decimals=2, width=6),
        stat("Spent in this time, about", f"sum(avg_over_time({cost}[$__range])) * $__range_s / 3600 or vector(0)",
             "currencyUSD", decimals=2, width=6, text="From the rates scraped. The exact sums: /api/v1/costs."),
        stat("Price drifts in this time", f"sum(increase(gpu_price_drift_total{{{OURS}}}[$__range]))", warn=1, width=6,
             text="Machines billed above their offer by more than the tolerance."),
        graph("Cost per hour by provider", [query(f"sum by (provider) ({cost})", "{{provider}}")], "currencyUSD",
              stacked=True),
        graph("Cost per hour by kind", [query(f"sum by (kind) ({cost})", "{{kind}}")], "currencyUSD", stacked=True),
        graph("Machines that may be billed", [query(f"sum by (state) (gpu_rentals_open{{{OURS}}})", "{{state}}")],
              stacked=True),
        graph("Price drifts", [query(rate("gpu_price_drift_total", "provider", OURS), "{{provider}}")], "cps"),
        row("Provider accounts"),
        graph("Balance", [query(f"sum by (provider) (gpu_provider_balance_dollars{{{OURS}}})", "{{provider}}")],
              "currencyUSD"),
        graph("How long the credit lasts", [
            query(f"min by (provider) (gpu_provider_runway_seconds{{{OURS}}}) < Inf", "{{provider}}")], "s",
            text="Nothing is shown while nothing runs there."),
        graph("Age of what the providers told", [
            query(f"max by (provider) (gpu_provider_balance_age_seconds{{{OURS}}})", "{{provider}} balance"),
            query(f"max by (provider) (gpu_charges_age_seconds{{{OURS}}})", "{{provider}} charges")], "s"),
        graph("Where their bill and our books differ", [
            query(f"sum by (provider, kind) (gpu_bill_findings{{{OURS}}})", "{{provider}} {{kind}}")], stacked=True),
        graph("By how much they differ", [
            query(f"sum by (provider, kind) (gpu_bill_difference_dollars{{{OURS}}})", "{{provider}} {{kind}}")],
            "currencyUSD", stacked=True),
        row("Budgets"),
        graph("Budgets by how they stand", [
            query("sum by (period, state) (gpu_budgets)", "{{period}}: {{state}}")], stacked=True),
        graph("Left of all budgets together", [query("sum by (period) (gpu_budget_left_dollars)", "{{period}}")],
              "currencyUSD", text="Neither spent nor reserved."),
        graph("Left of the tightest budget", [query("min by (period) (gpu_budget_least_left_ratio)", "{{period}}")],
              "percentunit", text="As a share of its limit."),
        graph("Machines that cost more than was reserved", [
            query(f"sum(increase(gpu_budget_overruns_total[{RATE}]))", "overruns")]),
    ])  # fmt: skip


def providers() -> Json:
    sent = f'{OURS},outcome!="gate_closed"'
    return board("providers", "Providers", "The marketplaces: inventory, calls, errors, and how we hold back.", [
        stat("Breakers open", f"sum(gpu_provider_breaker_open{{{OURS}}})", warn=1, alarm=1, width=6),
        stat("Oldest offers", f"max(gpu_offers_age_seconds{{{OURS}}})", "s", warn=180, alarm=900, width=6),
        stat("Oldest listing", f"max(gpu_sweep_age_seconds{{{OURS}}})", "s", warn=450, alarm=900, width=6),
        stat("429s in this time",
             f'sum(increase(gpu_provider_calls_total{{{OURS},outcome="rate_limited"}}[$__range])) or vector(0)',
             warn=1, alarm=10, width=6, decimals=0),
        graph("Offers", [query(f"sum by (provider) (gpu_offers_available{{{OURS}}})", "{{provider}}")]),
        graph("Age of the offers", [query(f"max by (provider) (gpu_offers_age_seconds{{{OURS}}})", "{{provider}}")],
              "s", alarm=900),
        graph("Fetches of offers", [
            query(rate("gpu_offer_fetches_total", "provider, outcome", OURS), "{{provider}} {{outcome}}")], "cps"),
        graph("Machines in the last listing", [
            query(f"sum by (provider, whose) (gpu_listing_machines{{{OURS}}})", "{{provider}} {{whose}}")]),
        graph("Failed listings in a row", [
            query(f"max by (provider) (gpu_listing_failures_in_a_row{{{OURS}}})", "{{provider}}")], alarm=5),
        graph("Breaker open, in maintenance", [
            query(f"max by (provider) (gpu_provider_breaker_open{{{OURS}}})", "{{provider}} breaker"),
            query(f"max by (provider) (gpu_provider_maintenance{{{OURS}}})", "{{provider}} maintenance")]),
        row("Calls"),
        graph("Calls by operation", [
            query(rate("gpu_provider_calls_total", "provider, operation", sent), "{{provider}} {{operation}}")],
            "reqps", stacked=True),
        graph("Calls by what came of them", [
            query(rate("gpu_provider_calls_total", "provider, outcome", sent), "{{provider}} {{outcome}}")], "reqps"),
        graph("How long answers took, 95 %", [quantiles("gpu_provider_call_duration_seconds", "operation", OURS)[1]],
              "s"),
        graph("Errors by operation", [
            query(rate("gpu_provider_api_errors_total", "provider, operation", OURS), "{{provider}} {{operation}}")],
            "cps", stacked=True),
        row("Our own gate"),
        graph("Calls held back", [
            query(rate("gpu_gate_holds_total", "provider, by", OURS), "{{provider}} by {{by}}")], "cps"),
        graph("Waiting at the gate", [
            query(rate("gpu_gate_wait_seconds_total", "provider", OURS), "{{provider}}")], "s",
            text="Seconds that calls waited for their slot, in each second."),
    ])  # fmt: skip


def api() -> Json:
    requests = "gpu_http_requests_total"
    return board("api", "API", "Requests, webhooks and the queue.", [
        stat("Requests", f"sum(rate({requests}[{RATE}])) or vector(0)", "reqps", width=6, decimals=1),
        stat("Errors of ours",
             f'sum(rate({requests}{{status=~"5..",status!="503"}}[{RATE}])) '
             f"/ sum(rate({requests}[{RATE}])) or vector(0)",
             "percentunit", warn=0.001, alarm=0.01, width=6, decimals=2),
        stat("Webhooks late by", 'max(gpu_due_lag_seconds{rows="webhooks"})', "s", warn=60, alarm=300, width=6),
        stat("Queue answers", "min(gpu_queue_up)", width=6, text="1: yes."),
        graph("Requests by status", [query(rate(requests, "status"), "{{status}}")], "reqps", stacked=True),
        graph("Requests by route", [query(f"topk(12, {rate(requests, 'method, route')})", "{{method}} {{route}}")],
              "reqps"),
        graph("How long requests took", quantiles("gpu_http_request_duration_seconds"), "s",
              text="A create or delete waits for the marketplace's verdict for as long as it was asked to."),
        graph("Slowest routes, 95 %", [
            {**quantiles("gpu_http_request_duration_seconds", "route")[1], "legendFormat": "{{route}}"}], "s"),
        row("Webhooks and queue"),
        graph("Deliveries that are not over", [query("sum by (state) (gpu_webhook_backlog)", "{{state}}")],
              stacked=True),
        graph("Deliveries by what came of them", [query(rate("gpu_webhook_deliveries_total", "outcome"),
                                                        "{{outcome}}")], "cps"),
        graph("Tasks that wait", [query("sum by (queue) (gpu_queue_depth)", "{{queue}}")], stacked=True),
        graph("How late the driver is", [query("max by (rows) (gpu_due_lag_seconds)", "{{rows}}")], "s", alarm=60),
    ], by_provider=False)  # fmt: skip


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for make in (overview, lifecycle, money, providers, api):
        text = json.dumps(make(), indent=2, ensure_ascii=False)
        (folder / f"{make.__name__}.json").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "dashboards")
