#!/usr/bin/env python3
"""Draws the dashboards of deploy/grafana from a Prometheus: what their panels would show.

  tools/draw_dashboards.py --prometheus URL --start S --end S --out docs/images

Needs matplotlib.
"""

import argparse
import json
import math
import pathlib
import sys
import urllib.parse
import urllib.request

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402
from matplotlib.ticker import FuncFormatter  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy" / "grafana"))
import panels  # noqa: E402

COLUMNS = 2
STEP_S = 1
VARIABLES = {"$__rate_interval": "10s", "$job": ".*", "$instance": ".*", "$model": ".*"}
PREFIXES = [(2**30, "Gi"), (2**20, "Mi"), (2**10, "Ki")]


def ask(url, expr, start, end):
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    query = urllib.parse.urlencode({"query": expr, "start": start, "end": end, "step": STEP_S})
    with urllib.request.urlopen(f"{url}/api/v1/query_range?{query}", timeout=30) as answer:
        return json.load(answer)["data"]["result"]


def legend(text, labels):
    for name, value in labels.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def axis_format(unit):
    def show(value, _):
        if unit == "percentunit":
            return f"{value * 100:.0f} %"
        if unit == "bytes":
            for size, prefix in PREFIXES:
                if abs(value) >= size:
                    return f"{value / size:.3g} {prefix}B"
        if unit == "s" and 0 < abs(value) < 1:
            return f"{value * 1000:.3g} ms"
        return f"{value:.3g}" + (" s" if unit == "s" else "")
    return FuncFormatter(show)


def series_of(panel, url, start, end):
    """[(name, [value at each step], whether it is a line)], without those that are 0 or nothing
    all the time."""
    steps = [start + i * STEP_S for i in range(int((end - start) / STEP_S) + 1)]
    found = []
    for query in panel.queries:
        for entry in ask(url, query.promql, start, end):
            values = {round(float(at) - start): float(value) for at, value in entry["values"]}
            row = [values.get(round(at - start), math.nan) for at in steps]
            if any(value and math.isfinite(value) for value in row):
                found.append((legend(query.legend, entry["metric"]), row,
                              panel.kind != "stack" or query.is_line))
    return [at - start for at in steps], found


def draw(board, url, start, end, out):
    rows = -(-len(board.panels) // COLUMNS)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(12, 2.6 * rows), squeeze=False)
    for axis in list(axes.flat)[len(board.panels):]:
        axis.remove()
    for axis, panel in zip(axes.flat, board.panels):
        steps, found = series_of(panel, url, start, end)
        stacked = [(name, row) for name, row, is_line in found if not is_line]
        if stacked:
            axis.stackplot(steps, [[0 if math.isnan(value) else value for value in row]
                                   for _, row in stacked], labels=[name for name, _ in stacked],
                           alpha=0.75)
        for name, row in ((name, row) for name, row, is_line in found if is_line):
            axis.plot(steps, row, label=name, linewidth=1.4)
        axis.set_title(panel.title, fontsize=10, loc="left")
        axis.yaxis.set_major_formatter(axis_format(panel.unit))
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.set_ylim(bottom=panel.minimum, top=panel.maximum)
        if found:
            axis.legend(fontsize=7, loc="upper left", ncols=2, framealpha=0.6)
        else:
            axis.text(0.5, 0.5, "nothing happened", transform=axis.transAxes, ha="center",
                      color="grey")
    figure.suptitle(board.title)
    figure.supxlabel("seconds", fontsize=8)
    figure.tight_layout()
    figure.savefig(out / f"{board.uid}.png", dpi=80)
    pyplot.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prometheus", required=True)
    parser.add_argument("--start", type=float, required=True)
    parser.add_argument("--end", type=float, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for board in panels.DASHBOARDS:
        draw(board, arguments.prometheus, arguments.start, arguments.end, arguments.out)


if __name__ == "__main__":
    main()
