#!/usr/bin/env python3
"""Draws the dashboards of deploy/grafana from a Prometheus: what their panels would show.

  tools/draw_dashboards.py --prometheus URL --start S --end S --out docs/images

Needs matplotlib.
"""

import argparse
import json
import math
import pathlib
import re
import sys
import urllib.parse
import urllib.request

import matplotlib

matplotlib.use("Agg")
from matplotlib import colormaps, pyplot  # noqa: E402
from matplotlib.ticker import FuncFormatter, MultipleLocator  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy" / "grafana"))
import panels  # noqa: E402

COLUMNS = 2
STEP_S = 1
DISTINCT_COLORS = 10  # of matplotlib, then they come again
HEADROOM = 1.05       # above the largest value: a line at the edge is not seen
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


def natural_order(name):
    """Positions of a draft are numbers: 2 before 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


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
        return f"{value:.6g}" + (" s" if unit == "s" else "")
    return FuncFormatter(show)


def series_of(panel, url, start, end):
    """[(name, [value at each step], whether it is a line)], those of a query by name. Without
    those that are nothing all the time, or 0 where that is no share of anything."""
    steps = [start + i * STEP_S for i in range(int((end - start) / STEP_S) + 1)]
    found = []
    for query in panel.queries:
        series = [(legend(query.legend, entry["metric"]), entry["values"])
                  for entry in ask(url, query.promql, start, end)]
        for name, samples in sorted(series, key=lambda entry: natural_order(entry[0])):
            values = {round(float(at) - start): float(value) for at, value in samples}
            row = [values.get(round(at - start), math.nan) for at in steps]
            if any(math.isfinite(value) and (value or panel.unit == "percentunit")
                   for value in row):
                found.append((name, row, panel.kind != "stack" or query.is_line))
    return [at - start for at in steps], found


def draw_names(axis, found):
    """What a panel of names shows: no curve, the names."""
    axis.set_axis_off()
    for i, (name, _, _) in enumerate(found):
        axis.text(0.02, 0.85 - 0.15 * i, name, transform=axis.transAxes, fontsize=9)


def draw_series(axis, panel, steps, found):
    if len(found) > DISTINCT_COLORS:
        axis.set_prop_cycle(color=colormaps["viridis"](
            [i / (len(found) - 1) for i in range(len(found))]))
    stacked = [(name, row) for name, row, is_line in found if not is_line]
    if stacked:
        axis.stackplot(steps, [[0 if math.isnan(value) else value for value in row]
                               for _, row in stacked], labels=[name for name, _ in stacked],
                       alpha=0.75)
    for name, row in ((name, row) for name, row, is_line in found if is_line):
        axis.plot(steps, row, label=name, linewidth=1.4)
    axis.set_xlim(0, steps[-1])
    top = panel.maximum if panel.maximum is not None else axis.get_ylim()[1]
    axis.set_ylim(bottom=panel.minimum, top=top * HEADROOM)
    if panel.unit == "bytes" and top > 0:
        axis.yaxis.set_major_locator(MultipleLocator(2 ** math.floor(math.log2(top / 3))))
    axis.yaxis.set_major_formatter(axis_format(panel.unit))
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    if found:  # beside the panel: it would hide what it explains
        axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1.04), frameon=False,
                    ncols=1 + (len(found) > DISTINCT_COLORS), columnspacing=0.8)
    else:
        axis.text(0.5, 0.5, "nothing happened", transform=axis.transAxes, ha="center",
                  color="grey")


def draw(board, url, start, end, out):
    rows = -(-len(board.panels) // COLUMNS)
    height = 2.4 * rows + 0.8
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(14, height), squeeze=False)
    for axis in list(axes.flat)[len(board.panels):]:
        axis.remove()
    for axis, panel in zip(axes.flat, board.panels):
        steps, found = series_of(panel, url, start, end)
        axis.set_title(panel.title, fontsize=10, loc="left")
        if panel.kind == "names":
            draw_names(axis, found)
        else:
            draw_series(axis, panel, steps, found)
    figure.suptitle(board.title)
    figure.supxlabel("seconds", fontsize=8)
    figure.subplots_adjust(left=0.055, right=0.88, wspace=0.42, hspace=0.35,
                           top=1 - 0.65 / height, bottom=0.5 / height)
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
