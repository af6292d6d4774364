"""`tandem bench serve` against a real server: what it sends, reports and plots."""

import json
import subprocess
import sys

import pytest

from conftest import BIN, ROOT


def bench(server, path, **options):
    """(the JSON, standard output, standard error) of a test that went well."""
    command = [str(BIN / "tandem"), "bench", "serve", "--endpoint", server.address, "--json",
               str(path), "--warmup", "0"]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(path.read_text()), result.stdout, result.stderr


def rows(markdown):
    """{name: [p50, p90, p95, p99, max]} of the table."""
    lines = [line.strip("|").split("|") for line in markdown.splitlines() if line.startswith("| ")]
    return {name.strip(): list(map(float, cells)) for name, *cells in lines[1:]}


def assert_in_order(request):
    begin = request.get("due_s", request["sent_s"])
    assert 0 <= begin <= request["sent_s"] <= request["end_s"]
    assert 0 < request["ttft_s"] <= request["end_s"] - begin


def test_a_closed_loop_has_its_clients_and_no_lateness(server, tmp_path):
    report, markdown, log = bench(server, tmp_path / "closed.json", requests=6, concurrency=2,
                                  prompt_tokens="4:9", output_tokens=5)
    assert report["settings"]["concurrency"] == 2
    assert [report[key] for key in ("ok", "rejected", "failed", "empty", "not_sent")] == [
        6, 0, 0, 0, 0]
    assert report["output_tokens"] == 30 and report["ttft_s"]["count"] == 6
    assert report["lateness_s"]["count"] == 0
    for request in report["requests"]:
        assert_in_order(request)
        assert "due_s" not in request
    assert markdown.startswith("6 answered, 0 refused, 0 failed in ")
    assert {"time to first token", "time per output token", "whole request"} <= set(rows(markdown))
    assert "generator's lateness" not in markdown
    assert "6 of 6 requests" in log


def test_an_open_loop_sends_all_that_is_due(server, tmp_path):
    report, markdown, _ = bench(server, tmp_path / "open.json", requests=20, rate=200,
                                prompt_tokens="lognormal:12:2:40", output_tokens="lognormal:8:2:30")
    assert report["settings"]["concurrency"] == 4096
    assert (report["ok"], report["rejected"], report["not_sent"]) == (20, 0, 0)
    assert report["lateness_s"]["count"] == 20
    lengths = [request["prompt_tokens"] for request in report["requests"]]
    assert all(2 <= length <= 40 for length in lengths) and len(set(lengths)) > 3
    for request in report["requests"]:
        assert_in_order(request)
    last_due = max(request["due_s"] for request in report["requests"])
    assert report["seconds"] >= last_due > 0
    table = rows(markdown)
    assert table["generator's lateness"][3] == pytest.approx(1e3 * report["lateness_s"]["p99"],
                                                             abs=0.06)
    assert "Not an open loop" not in markdown


def test_what_the_generator_did_not_send_is_no_refusal(server, tmp_path):
    report, markdown, log = bench(server, tmp_path / "cut.json", requests=20, rate=1000,
                                  concurrency=1, prompt_tokens=8, output_tokens=48)
    assert report["not_sent"] > 0 and report["rejected"] == report["failed"] == 0
    assert report["ok"] + report["not_sent"] == 20
    assert report["rejection_s"]["count"] == 0
    codes = [request["code"] for request in report["requests"]]
    assert codes.count("NOT_SENT") == report["not_sent"]
    assert markdown.startswith(f"**Not an open loop**: {report['not_sent']} of 20 arrivals")
    assert "20 of 20 requests" in log


def test_refusals_are_those_of_the_server(start_server, tmp_path):
    server = start_server("--max-running", "1", "--max-waiting", "1")
    report, markdown, _ = bench(server, tmp_path / "full.json", requests=20, rate=1000,
                                prompt_tokens=8, output_tokens=48)
    assert report["rejected"] > 0 and report["failed"] == report["not_sent"] == 0
    assert report["ok"] + report["rejected"] == 20
    assert report["rejection_s"]["count"] == report["rejected"]
    assert report["rejection_s"]["p50"] > 0 and "refusal" in rows(markdown)


def test_plots_compare_reports_of_both_loops(server, tmp_path):
    closed, cut = tmp_path / "closed.json", tmp_path / "cut.json"
    bench(server, closed, requests=4, concurrency=2, prompt_tokens=8, output_tokens="1:4")
    bench(server, cut, requests=10, rate=1000, concurrency=1, prompt_tokens=8, output_tokens=8)
    # An answer that ended at once has neither time.
    report = json.loads(closed.read_text())
    for key in ("ttft_s", "tpot_s"):
        report["requests"][0].pop(key, None)
    closed.write_text(json.dumps(report))
    picture = tmp_path / "load.png"
    subprocess.run([sys.executable, str(ROOT / "tools" / "plot_load.py"), str(closed), str(cut),
                    "--out", str(picture)], check=True, timeout=120)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("option,value", [
    ("--output-tokens", "lognormal:0:1:9"), ("--prompt-tokens", "9:3"), ("--concurrency", "5000"),
    ("--rate", "-1")])
def test_wrong_options_are_usage_errors(option, value):
    result = subprocess.run([str(BIN / "tandem"), "bench", "serve", option, value],
                            capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2 and result.stderr.startswith("tandem: ")
