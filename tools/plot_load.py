#!/usr/bin/env python3
"""Plots what `tandem bench serve --json` wrote: one file, or several to compare.

  .cache/venv/bin/python tools/plot_load.py off.json auto.json --out load.png

matplotlib is of tests/requirements.txt: `scripts/setup --tests` gets it.
"""

import argparse
import json
import pathlib


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("load.png"))
    arguments = parser.parse_args()

    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5))
    for path in arguments.files:
        report = json.loads(path.read_text())
        done = [request for request in report["requests"] if request["code"] == "OK"]
        for axis, key in zip(axes, ("ttft_s", "tpot_s")):
            values = sorted(1e3 * request[key] for request in done if key in request)
            shares = [(i + 1) / len(values) for i in range(len(values))]
            axis.step(values, shares, where="post", label=path.stem)
        begins = [request.get("due_s", request["sent_s"]) for request in done]
        not_sent = f", {report['not_sent']} not sent" if report.get("not_sent") else ""
        axes[2].scatter(begins, [request["end_s"] - begin for request, begin in zip(done, begins)],
                        s=9, label=f"{path.stem}: {report['output_tokens_per_second']:.0f} tok/s"
                        + not_sent)
    for axis, name in zip(axes, ("time to first token", "time per output token")):
        axis.set(xlabel=f"{name}, ms", ylabel="share of requests", ylim=(0, 1.02))
    axes[2].set(xlabel="due or sent, s", ylabel="whole request, s")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(arguments.out, dpi=120)
    print(arguments.out)


if __name__ == "__main__":
    main()
