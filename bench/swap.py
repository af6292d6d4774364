#!/usr/bin/env python3
"""What swap space is worth where the page pool is too small for its requests.

Starts `tandem serve` with and without --swap-space, in turn, under a load of long prompts and
answers that preempts; prints a Markdown table. Needs nothing but Python.

  bench/swap.py --target 8B.gguf --device cuda:0 --kv-tokens 20480 --prompt-tokens 2048 --output-tokens 1024
"""

import argparse

from serving import Server, load, median


def counter(server, name, label=""):
    return sum(value for sample, value in server.samples().items()
               if sample.startswith(name + "{") and label in sample)


def run(args, swap_space):
    flags = ["--device", args.device, "--kv-tokens", str(args.kv_tokens), "--max-running",
             str(args.concurrency), "--swap-space", swap_space]
    with Server(args.target, None, *flags) as server:
        report = load(server, speculation="off", load_seed=3, concurrency=args.concurrency,
                      requests=args.requests, prompt_tokens=args.prompt_tokens,
                      output_tokens=args.output_tokens, warmup=0)
        return {
            "tokens a second": report["output_tokens_per_second"],
            "longest wait for a token, s": report["itl_s"]["max"],
            "preempted": counter(server, "tandem_preemptions_total"),
            "pages out": counter(server, "tandem_swapped_pages_total", 'direction="out"'),
            "pages back": counter(server, "tandem_swapped_pages_total", 'direction="in"'),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--kv-tokens", type=int, required=True)
    parser.add_argument("--concurrency", type=int, default=12)
    parser.add_argument("--requests", type=int, default=36)
    parser.add_argument("--prompt-tokens", type=int, default=2048)
    parser.add_argument("--output-tokens", type=int, default=1024)
    parser.add_argument("--swap-space", default="1GiB")
    parser.add_argument("--turns", type=int, default=2)
    args = parser.parse_args()
    sides = {"0": [], args.swap_space: []}
    for _ in range(args.turns):
        for swap_space, figures in sides.items():
            figures.append(run(args, swap_space))
    names = list(figures[0])
    print("| --swap-space | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for swap_space, figures in sides.items():
        cells = [f"{median(one[name] for one in figures):.4g}" for name in names]
        print(f"| {swap_space} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
