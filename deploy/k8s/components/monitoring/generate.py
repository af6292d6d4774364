#!/usr/bin/env python3
"""Writes prometheus-rule.yaml from deploy/prometheus: one source for both kinds of Prometheus.

  deploy/k8s/components/monitoring/generate.py [--out FILE]
"""

import argparse
import pathlib

import yaml

HERE = pathlib.Path(__file__).resolve().parent
RULES = HERE.parents[2] / "prometheus"
HEADER = "# Made by generate.py from deploy/prometheus: change it there.\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "prometheus-rule.yaml")
    groups = []
    for name in ("rules.yml", "alerts.yml"):
        groups += yaml.safe_load((RULES / name).read_text(encoding="utf-8"))["groups"]
    rule = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule",
            "metadata": {"name": "tandem"}, "spec": {"groups": groups}}
    text = HEADER + yaml.safe_dump(rule, sort_keys=False, width=1000, allow_unicode=True)
    parser.parse_args().out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
