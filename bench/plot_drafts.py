#!/usr/bin/env python3
"""Plots drafts by size: acceptance, and the speed that it promises. Prints the table too.

  bench/plot_drafts.py [--data bench/results/drafts.json] [--out docs/drafts.svg]

Promised speed, of one stream: tokens a round over its time, at the best fixed length, when a
draft token is right with the measured greedy acceptance. Time is in plain steps of the target:
each draft token costs `cost`, each row more to verify `row`. On the CPU cost is the weights read
(4.5 bits each) and row what bench/forward_bench.cc measured; on a GPU cost is that of the shape
the draft is inflated to, and a row costs nothing. "measured" in the data: AUTO against OFF, on
chat prompts (bench/speculation.py, bench/serve_gpu.py).
"""

import argparse
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET_MILLIONS = 134.5
CPU_ROW = 0.2  # five rows take 1.8 of one: bench/results/cpu_forward.md
SHAPES = {"8B/1B": 1.24 / 8.03, "8B/0.5B": 0.5 / 8.03, "8B/0.3B": 0.3 / 8.03}  # parameters


def speed(acceptance, cost, row):
    best, tokens, survives = 1.0, 1.0, 1.0
    for length in range(1, 17):
        survives *= acceptance
        tokens += survives
        best = max(best, tokens / (1.0 + (cost + row) * length))
    return best


def rate(draft, key="greedy"):
    """Of a draft that was trained in a format: in that. None where it was not measured."""
    return draft["result"].get(f"{key}, {draft['rounded']}" if "rounded" in draft else key)


def promised(draft):
    """Speeds by name of the machine."""
    acceptance = rate(draft)
    return {"CPU": speed(acceptance, draft["millions"] / TARGET_MILLIONS, CPU_ROW)} | {
        name: speed(acceptance, cost, 0.0) for name, cost in SHAPES.items()}


def table(drafts):
    columns = ["CPU", *SHAPES]
    lines = ["| draft | parameters | greedy | chain of 4 | " + " | ".join(columns) + " |",
             "|---|---|---|---|" + "---|" * len(columns)]
    for draft in drafts:
        speeds = promised(draft)
        lines.append(f"| {draft['name']} | {draft['millions']:.1f} M | "
                     f"{rate(draft):.3f} | {rate(draft, 'chain_of_4'):.2f} | "
                     + " | ".join(f"{speeds[column]:.2f}" for column in columns) + " |")
    return "\n".join(lines)


def draw(drafts, out):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    plt.rcParams["svg.hashsalt"] = "drafts"
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2))
    sizes = [draft["millions"] for draft in drafts]
    for key, label in (("greedy", "greedy"), ("rejection at 1.0", "REJECTION, temperature 1"),
                       ("coupled at 1.0", "COUPLED, temperature 1")):
        known = [d for d in drafts if rate(d, key) is not None]
        axes[0].scatter([d["millions"] for d in known], [rate(d, key) for d in known],
                        label=label)
    for draft in drafts:
        beside = any(0 < rate(d) - rate(draft) < 0.03 and d["millions"] == draft["millions"]
                     for d in drafts)
        axes[0].annotate(draft["name"], (draft["millions"], rate(draft)),
                         textcoords="offset points", xytext=(4, -11 if beside else 5), fontsize=8)
    axes[0].set(ylabel="acceptance rate", ylim=(0.35, 0.85))
    for name in ("CPU", *SHAPES):
        dots = axes[1].scatter(sizes, [promised(draft)[name] for draft in drafts], label=name)
        measured = [d for d in drafts if name in d.get("measured", {})]
        axes[1].scatter([d["millions"] for d in measured], [d["measured"][name] for d in measured],
                        marker="x", color=dots.get_facecolor())
    axes[1].set(ylabel="speed over plain decoding (x: measured)", ylim=(1, None))
    for axis in axes:
        axis.set(xlabel="parameters of the draft, millions", xscale="log")
        axis.set_xlim(4, 240)
        axis.set_xticks([5, 10, 20, 40, 80, 120], labels=["5", "10", "20", "40", "80", "120"])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=ROOT / "bench/results/drafts.json")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs/drafts.svg")
    arguments = parser.parse_args()
    drafts = sorted(json.loads(arguments.data.read_text()), key=lambda draft: draft["millions"])
    print(table(drafts))
    draw(drafts, arguments.out)


if __name__ == "__main__":
    main()
