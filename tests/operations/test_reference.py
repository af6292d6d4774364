"""The tables of docs/operations.md are what the programs say."""

import os
import pathlib
import subprocess
import sys
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_flags_and_metrics_are_documented(scenario, tmp_path):
    page = tmp_path / "metrics.txt"
    with urllib.request.urlopen(scenario.server.metrics_url, timeout=10) as answer:
        page.write_bytes(answer.read())
    bin_folder = os.environ.get("TANDEM_BIN", str(ROOT / "build" / "bin"))
    arguments = [sys.executable, str(ROOT / "tools" / "make_reference.py"), "--bin", bin_folder,
                 "--metrics", str(page)]
    if "TANDEM_WRITE_REFERENCE" not in os.environ:
        arguments.append("--check")
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_metric_of_the_code_is_on_the_page(scenario):
    """A family without a series would be in the list of the code and nowhere else."""
    import re

    source = (ROOT / "common" / "telemetry" / "metric_names.h").read_text(encoding="utf-8")
    names = set(re.findall(r'\{"(tandem_\w+)"', source))
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert names and not sorted(name for name in names if f"`{name}`" not in text)
