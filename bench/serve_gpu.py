#!/usr/bin/env python3
"""Figures of a whole server on a GPU, as ratios taken in one run.

Starts `tandem serve --device cuda:0`, puts load on it with `tandem bench serve`, sides in turn,
medians of the turns; writes JSON and Markdown. Runs from a bundle too (TANDEM_BIN); needs
nothing but Python. Say in --label what the models are.

  bench/serve_gpu.py --target 8B.gguf --draft 1B.gguf --label "inflated SmolLM2 pair" --out FOLDER
"""

import argparse
import datetime
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

from serving import (ROOT, Server, cached_prompt, gateway_overhead, latency_beside_prefill, load,
                     median)

# Characters of a story before "continue": prompts of about 100 and 2000 tokens with the template.
PROMPT_CHARACTERS = {"100 tokens": 330, "2k tokens": 7900}


def story_prompts(story, num_characters, count):
    """A file of `count` prompts, one a line, of different parts of the story."""
    text = " ".join(pathlib.Path(story).read_text().split())
    step = max(1, (len(text) - num_characters) // count)
    lines = [f"Continue this story: {text[i * step:i * step + num_characters]}"
             for i in range(count)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as file:
        file.write("\n".join(lines) + "\n")
    return file.name


def device_bytes(server):
    """Bytes by (role, kind) as the server counts them."""
    return {name: value for name, value in server.samples().items()
            if name.startswith("tandem_vram_")}


def with_and_without_drafts(server, turns, **options):
    """Medians of output tokens a second, {mode: value}, the modes in turn.

    Answers end by themselves, at 128 tokens at the latest.
    """
    results = {}
    for turn in range(turns):
        for mode in ("off", "auto"):
            report = load(server, speculation=mode, load_seed=10 + turn, **options)
            results.setdefault(mode, []).append(report["output_tokens_per_second"])
    return {mode: median(values) for mode, values in results.items()}


def speculation(server, turns, texts, story, add):
    options = {"concurrency": 1, "requests": 12, "output_tokens": 128, "warmup": 2}
    for name, file, must, goal in (
            ("chat prompts", texts, "1.4x", "1.8x"),
            ("100-token prompts", story_prompts(story, PROMPT_CHARACTERS["100 tokens"], 8), "1.3x",
             ""),
            ("2k prompts", story_prompts(story, PROMPT_CHARACTERS["2k tokens"], 8), "1.5x", "")):
        speed = with_and_without_drafts(server, turns, texts=file, **options)
        add(f"{name}: AUTO against OFF, batch 1", speed["auto"] / speed["off"], must, goal)
        add(f"{name}: tokens a second, OFF", speed["off"], "", "")
    for concurrency in (8, 16):
        speed = with_and_without_drafts(server, turns, texts=texts, concurrency=concurrency,
                                        requests=6 * concurrency, output_tokens=128,
                                        warmup=concurrency)
        add(f"batch {concurrency}, chat prompts: AUTO against OFF", speed["auto"] / speed["off"],
            "1.2x" if concurrency == 8 else "0.97x", "1.6x" if concurrency == 8 else "")


def other_drafts(drafts, start, turns, texts, add):
    """What a smaller draft costs and saves: `drafts` are NAME=FILE."""
    for name, file in (draft.split("=", 1) for draft in drafts):
        with start(file) as server:
            for batch in (1, 8):
                speed = with_and_without_drafts(server, turns, texts=texts, concurrency=batch,
                                                requests=max(12, 6 * batch), output_tokens=128,
                                                warmup=max(2, batch))
                add(f"chat prompts with a draft of {name}: AUTO against OFF, batch {batch}",
                    speed["auto"] / speed["off"], "", "")
            held = sum(value for key, value in device_bytes(server).items()
                       if key.startswith("tandem_vram_bytes") and 'role="draft"' in key
                       and 'kind="weights"' in key)
            add(f"device bytes of the weights of {name}, GiB", held / 2**30, "", "")


def concurrency(server, turns, add):
    values = {}
    for turn in range(turns):
        for clients in (1, 8, 32):
            report = load(server, concurrency=clients, requests=max(4, 2 * clients),
                          prompt_tokens=64, output_tokens=128, speculation="off",
                          load_seed=50 + turn, warmup=min(clients, 8))
            values.setdefault(clients, []).append(report["output_tokens_per_second"])
    one = median(values[1])
    add("8 concurrent against 1, tok/s, speculation off", median(values[8]) / one, "", "")
    add("32 concurrent against 1, tok/s, speculation off", median(values[32]) / one, "12x", "20x")
    long = {}
    for turn in range(turns):
        for clients in (1, 32):
            report = load(server, concurrency=clients, requests=max(2, clients), prompt_tokens=64,
                          output_tokens=512, speculation="off", load_seed=70 + turn, warmup=0)
            long.setdefault(clients, []).append(report["output_tokens_per_second"])
    add("32 concurrent against 1, answers of 512 tokens instead of 128",
        median(long[32]) / median(long[1]), "", "")


def machine(label):
    gpu = "no GPU"
    if shutil.which("nvidia-smi"):
        gpu = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version",
                              "--format=csv,noheader"], capture_output=True, text=True,
                             check=False).stdout.strip()
    commit = ROOT / "COMMIT"
    if commit.exists():
        version = commit.read_text().strip()
    else:
        version = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT,
                                 capture_output=True, text=True, check=True).stdout.strip()
    return {"gpu": gpu, "cores": os.cpu_count(), "commit": version, "models": label,
            "date": datetime.date.today().isoformat()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--draft", required=True)
    parser.add_argument("--label", required=True, help="what the models are")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--ctx", default="16384")
    parser.add_argument("--texts", default=str(ROOT / "bench" / "serve_texts.txt"))
    parser.add_argument("--story", default=str(ROOT / "common/model/testdata/alice.txt"))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--parts", default="speculation,concurrency,latency,memory,overhead")
    parser.add_argument("--other-draft", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--serve-flag", action="append", default=[], help="more for tandem serve")
    parser.add_argument("--out", default=str(ROOT / "bench" / "results"))
    arguments = parser.parse_args()
    rows, raw = [], {}
    parts = arguments.parts.split(",")
    flags = ["--device", arguments.device, *arguments.serve_flag]

    def add(name, value, must, goal):
        rows.append((name, value, must, goal))
        print(f"{name}: {value:.4g}", flush=True)

    def start(draft):
        return Server(arguments.target, draft, "--max-running", "32", "--ctx", arguments.ctx,
                      "--kv-tokens", "65536", *flags)

    with start(arguments.draft) as server:
        if "speculation" in parts:
            speculation(server, arguments.turns, arguments.texts, arguments.story, add)
        if "concurrency" in parts:
            concurrency(server, arguments.turns, add)
        if "latency" in parts:
            new, cached = cached_prompt(server, arguments.turns)
            add("TTFT of a 2k prompt, s", median(new), "", "")
            add("TTFT of a 2k prompt, cached against not", median(cached) / median(new), "0.15x",
                "0.05x")
            without, beside, _ = latency_beside_prefill(server, arguments.turns, 4)
            add("p99 ITL of 4 streams beside 4k prompts, against without",
                median([itl["p99"] for itl in beside]) / median([itl["p99"] for itl in without]),
                "2x", "1.3x")
    other_drafts(arguments.other_draft, start, arguments.turns, arguments.texts, add)
    if "memory" in parts:
        with Server(arguments.target, arguments.draft, "--max-running", "1", "--ctx", arguments.ctx,
                    "--kv-tokens", arguments.ctx, "--kv", "q4", "--draft-kv", "q8", *flags) as server:
            raw["vram"] = held = device_bytes(server)
            allocated = sum(value for name, value in held.items()
                            if name.startswith("tandem_vram_bytes") and 'kind="other"' not in name)
            add("device bytes allocated, both models and 16k of context, GiB", allocated / 2**30,
                "6.0", "5.4")
    if "overhead" in parts:
        raw["overhead"] = gateway_overhead(arguments.target, *flags)
        add("gateway CPU time a step at batch 32, us", raw["overhead"], "300", "100")

    where = machine(arguments.label)
    text = ["# A server on a GPU", "", f"{where['gpu']}; {where['models']}; commit "
            f"{where['commit']}, {where['date']}; `bench/serve_gpu.py`, medians of "
            f"{arguments.turns} turns, sides in turn in one run.", "",
            "| figure | value | must | goal |", "|---|---|---|---|"]
    text += [f"| {name} | {value:.4g} | {must} | {goal} |" for name, value, must, goal in rows]
    out = pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "serve_gpu.md").write_text("\n".join(text) + "\n")
    (out / "serve_gpu.json").write_text(
        json.dumps({"machine": where, "rows": rows, "raw": raw}, indent=1) + "\n")


if __name__ == "__main__":
    main()
