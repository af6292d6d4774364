"""Rules, alerts and dashboards against a real Prometheus that scrapes a server under load."""

import json
import math
import pathlib
import re
import shutil
import subprocess

import panels
import pytest
import yaml
from prometheus_server import RULES, find

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What users put the address of their copy of docs/runbook.md for: Alertmanager and Grafana make a
# link of it, which a path of the source tree is not.
RUNBOOK = "https://runbooks.example/tandem"
DASHBOARDS = ROOT / "deploy" / "grafana" / "dashboards"
# What Grafana puts in for its variables.
VARIABLES = {"$__rate_interval": "10s", "$job": "tandem", "$instance": ".*", "$model": ".*"}


def rules(name):
    groups = yaml.safe_load((RULES / name).read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def substituted(expr):
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return expr


def dashboard_queries():
    """(dashboard, panel, expr) of the committed JSON."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        board = json.loads(path.read_text(encoding="utf-8"))
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield board["title"], panel["title"], target["expr"]


def run_promtool(*arguments, **kwargs):
    result = subprocess.run([find("promtool"), *arguments], capture_output=True, text=True,
                            check=False, **kwargs)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_promtool_takes_configuration_and_rules():
    run_promtool("check", "config", str(RULES / "prometheus.yml"))
    run_promtool("check", "rules", str(RULES / "rules.yml"), str(RULES / "alerts.yml"))


def test_alerts_fire_and_do_not_fire():
    run_promtool("test", "rules", str(RULES / "tests" / "alerts_test.yml"))


def test_every_alert_has_cases_of_both_kinds_and_a_page():
    tests = yaml.safe_load((RULES / "tests" / "alerts_test.yml").read_text(encoding="utf-8"))
    fired, quiet = set(), set()
    for test in tests["tests"]:
        series = {re.search(r'instance="(\w+)"', entry["series"]) for entry in
                  test["input_series"]}
        instances = {match.group(1) for match in series if match}
        for case in test["alert_rule_test"]:
            name = case["alertname"]
            firing = {alert["exp_labels"].get("instance") for alert in case["exp_alerts"]}
            if case["exp_alerts"]:
                fired.add(name)
            # Beside what fires there is an instance that does not.
            if not case["exp_alerts"] or instances - firing:
                quiet.add(name)
    runbook = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    for rule in rules("alerts.yml"):
        name = rule["alert"]
        assert name in fired and name in quiet, name
        assert rule["annotations"]["runbook_url"] == f"{RUNBOOK}#{name.lower()}"
        assert re.search(rf"^## {name}$", runbook, re.M), f"no page for {name}"
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]


def test_one_command_puts_another_address_of_the_runbook(tmp_path):
    """That of docs/operations.md; test_kubernetes.py tries the one for the operator."""
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    command = re.search(r"^sed -i .*", guide, re.M).group(0)
    shutil.copytree(RULES, tmp_path / "deploy" / "prometheus")
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    alerts = (tmp_path / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    links = re.findall(r"runbook_url: (.*)", alerts)
    assert links and all(link.startswith("https://wiki.your.org/tandem-runbook#tandem")
                         for link in links), links


def test_the_page_of_metrics_is_clean(scenario):
    import urllib.request

    with urllib.request.urlopen(scenario.server.metrics_url, timeout=10) as answer:
        page = answer.read().decode()
    run_promtool("check", "metrics", input=page)
    assert page.count("\n") < 1500


def test_every_recording_rule_has_a_value(scenario):
    for rule in rules("rules.yml"):
        samples = scenario.prometheus.query(rule["record"])
        assert any(math.isfinite(value) for _, value in samples), (rule["record"], samples)


def test_every_alert_can_be_asked_and_the_server_is_well(scenario):
    prometheus = scenario.prometheus
    for rule in rules("alerts.yml"):
        prometheus.query(rule["expr"])
    groups = prometheus.get("/api/v1/rules")["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        assert rule["health"] == "ok", rule
    firing = [alert for alert in prometheus.get("/api/v1/alerts")["alerts"]
              if alert["state"] == "firing"]
    assert not firing, firing


def test_every_query_of_the_dashboards_has_a_value(scenario):
    """An expression that is wrong, or names a metric that is not there, shows nothing."""
    empty = []
    for board, panel, expr in dashboard_queries():
        expr = substituted(expr)
        assert "$" not in expr, expr
        # Over the whole scenario: the load is over at its end.
        series = scenario.prometheus.query_range(expr, scenario.start, scenario.end, 1)
        if not any(math.isfinite(value) for _, values in series for _, value in values):
            empty.append(f"{board} / {panel}: {expr}")
    assert not empty, "\n".join(empty)


def test_dashboards_show_every_metric_of_the_server(scenario):
    """A metric that no panel, rule or alert uses is one that nobody will see."""
    used = " ".join(expr for _, _, expr in dashboard_queries())
    used += " ".join(rule["expr"] for rule in rules("rules.yml") + rules("alerts.yml"))
    names = {metric["__name__"] for metric, _ in
             scenario.prometheus.query('{__name__=~"tandem_.*"}')}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
    families -= {"tandem_kv_cache_config_info"}  # for a join by hand
    assert not sorted(name for name in families if name not in used)


@pytest.mark.parametrize("role", ["draft", "target"])
def test_series_survive_a_death(scenario, role):
    """A worker that is away has figures all the same: a gap would hide it."""
    for metric in ("tandem_worker_up", "tandem_vram_bytes", "tandem_model_info",
                   "tandem_step_duration_seconds_count"):
        series = scenario.prometheus.query_range(f'sum({metric}{{role="{role}"}})',
                                                 scenario.start, scenario.end, 1)
        assert len(series) == 1, metric
        times = [at for at, _ in series[0][1]]
        assert max(b - a for a, b in zip(times, times[1:])) <= 1.0, metric


def test_all_processes_tell_the_same_build(scenario):
    builds = {metric["role"]: (metric["version"], metric["commit"], metric["cuda"])
              for metric, _ in scenario.prometheus.query("tandem_build_info")}
    assert set(builds) == {"gateway", "target", "draft"}
    assert len(set(builds.values())) == 1, builds


def test_the_memory_adds_up(scenario):
    samples = {metric["__name__"]: value for metric, value in
               scenario.prometheus.query('{__name__=~"tandem_vram_.*_bytes"}')}
    accounted = scenario.prometheus.query("sum(tandem_vram_bytes)")[0][1]
    other = scenario.prometheus.query('sum(tandem_vram_bytes{kind="other"})')[0][1]
    assert 0 < samples["tandem_vram_free_bytes"] < samples["tandem_vram_total_bytes"]
    # Weights, workspace and pool are what was planned; only `other` comes on top.
    assert accounted - other == samples["tandem_vram_budget_bytes"]
    assert samples["tandem_vram_unaccounted_bytes"] >= 0


def test_committed_dashboards_are_what_the_source_makes(tmp_path):
    subprocess.run(["python3", str(ROOT / "deploy" / "grafana" / "generate.py"), "--out",
                    str(tmp_path)], check=True, env=python_environment())
    made = {path.name: path.read_text() for path in tmp_path.glob("*.json")}
    committed = {path.name: path.read_text() for path in DASHBOARDS.glob("*.json")}
    assert made == committed, "run deploy/grafana/generate.py"
    assert len(made) == len(panels.DASHBOARDS)


def python_environment():
    """That of the tests, so that `python3` is the one with the packages."""
    import os
    import sys

    folder = str(pathlib.Path(sys.executable).parent)
    return {**os.environ, "PATH": folder + os.pathsep + os.environ["PATH"]}


def test_pictures_can_be_drawn(scenario, tmp_path):
    """TANDEM_DRAW=docs/images keeps them. Those that are there were drawn with TANDEM_LOAD_S=30 and
    TANDEM_TEST_DRAFT=models/smollm2-135m-instruct.tiny.q4_1.gguf."""
    import os
    import sys

    out = os.environ.get("TANDEM_DRAW", str(tmp_path))
    subprocess.run([sys.executable, str(ROOT / "tools" / "draw_dashboards.py"), "--prometheus",
                    scenario.prometheus.url, "--start", str(scenario.start), "--end",
                    str(scenario.end), "--out", out], check=True)
    for board in panels.DASHBOARDS:
        assert (pathlib.Path(out) / f"{board.uid}.png").stat().st_size > 10_000
