"""Command line: `prompts`, `run`, `export`. See docs/drafts.md for a whole run."""

import argparse
import json
import os
import sys
import time

import numpy as np
import torch

from . import export
from .generate import ChatIds, Generator, generate
from .measure import ANSWER_TOKENS
from .ranks import Ranks
from .teacher import Teacher
from .train import count_ids, train


HELD_OUT_HEATS = (0.0, 0.5, 0.5, 0.8, 0.8, 1.0, 1.0)


def given_rows(prompts, rows, positions, device):
    """Ids of the given beginnings, [rows, positions]; -1 where the teacher writes."""
    given = np.full((rows, positions), -1, np.int64)
    for row, prompt in enumerate(prompts):
        given[row, :len(prompt)] = prompt[:positions]
    return torch.from_numpy(given).to(device)


def split_prompts(file, key):
    ids, ends = file[key + "_ids"], file[key + "_ends"]
    return np.split(ids, ends[:-1])


def training_batches(file, key, rows, positions, ranks, seed):
    """Batches of beginnings in random order, again and again; each rank has its own."""
    prompts, modes = split_prompts(file, key), file[key + "_modes"]
    random = np.random.default_rng(seed)
    own = np.arange(ranks.number, len(prompts), ranks.count)
    while True:
        order = random.permutation(own)
        for begin in range(0, max(1, len(order) - rows + 1), rows):
            chosen = np.resize(order[begin:begin + rows], rows)
            temperature = random.choice([0.0, 0.0, 0.7, 1.0], rows).astype(np.float32)
            yield (given_rows([prompts[i] for i in chosen], rows, positions, ranks.device),
                   torch.from_numpy(modes[chosen].astype(np.int64)).to(ranks.device),
                   torch.from_numpy(temperature).to(ranks.device))


def held_out_heats(prompts, rows):
    """Temperatures of the answers: all greedy, then all at the first of HELD_OUT_HEATS, ..."""
    return [heat for heat in HELD_OUT_HEATS for _ in prompts][:rows]


def held_out_answers(prompts, generator, device):
    """Answers to the evaluation prompts, at those temperatures."""
    rows = generator.rows
    heats = held_out_heats(prompts, rows)
    temperature = torch.zeros(rows, device=device)
    temperature[:len(heats)] = torch.tensor(heats, device=device)
    chosen = [prompts[i % len(prompts)] for i in range(rows)]
    positions = min(generator.positions, max(map(len, prompts)) + ANSWER_TOKENS)
    data = generator.run(given_rows(chosen, rows, positions, device),
                         torch.ones(rows, dtype=torch.long, device=device), temperature,
                         answers_only=True)
    return type(data)(*(getattr(data, name)[:len(heats)].clone()
                        for name in data.__dataclass_fields__))


def written(plan, teacher, file, ranks, out):
    """The text of all ranks, and the first one's answers to the held-out prompts. Another "seed" of
    the plan: other prompts first, other text."""
    groups = plan["data"]
    chat = ChatIds(int(file["end"]), tuple(file["bridge_" + turn].tolist()
                                        for turn in ("user", "assistant")))
    prompts = split_prompts(file, "held_out")
    heats = held_out_heats(prompts, groups[0]["rows"])
    datasets, answers = [], []
    for index, group in enumerate(groups):
        generator = Generator(teacher, chat, group["rows"], group["positions"])
        if index == 0 and ranks.number == 0:
            answers = [held_out_answers(prompts, generator, ranks.device)]
            np.savez_compressed(os.path.join(out, "held_out.npz"), heats=heats, **{
                name: getattr(answers[0], name).cpu().numpy()
                for name in ("tokens", "argmax", "weight")})
        seed = plan.get("seed", 0) + index + len(groups) * ranks.number
        torch.manual_seed(seed)
        batches = training_batches(file, group["prompts"], group["rows"], group["positions"],
                                   ranks, seed)
        datasets += generate(generator, batches, group["seconds"], group["max_tokens"])
        del generator
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return ranks.everyones(datasets), (ranks.everyones(answers)[0],
                                       file["held_out_classes"].tolist(), heats)


def run(args):
    begin = time.time()
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    with open(args.drafts) as file:
        plan = json.load(file)
    os.makedirs(args.out, exist_ok=True)
    ranks = Ranks(device)
    teacher, file = Teacher(args.target, device), np.load(args.prompts)
    print(f"teacher read  {time.time() - begin:.0f} s", file=sys.stderr, flush=True)
    datasets, held_out = written(plan, teacher, file, ranks, args.out)
    ranks.part()
    counts = count_ids(datasets, teacher.shape.vocab)
    tokens = sum(int((data.weight > 0).sum()) for data in datasets)
    if ranks.number == 0:
        np.save(os.path.join(args.out, "id_counts.npy"), counts.cpu().numpy())
    order = counts.sort(descending=True).values.cumsum(0) / counts.sum()
    for size in (4096, 8192, 12288, 16384, 24576, 32768):
        if size < len(order):
            print(f"the {size} most frequent ids are {order[size - 1]:.4f} of the text",
                  file=sys.stderr)
    print(f"{tokens / 1e6:.2f} M tokens  {time.time() - begin:.0f} s", file=sys.stderr, flush=True)
    for spec in filter(ranks.trains, plan["drafts"]):
        spec["data_tokens"] = tokens
        student = train(spec, teacher, datasets, held_out, counts, args.out)
        export.pack(student.state_dict(), spec, os.path.join(args.out, spec["name"] + ".pack"),
                    spec.get("travels_as", "F16"))
        open(os.path.join(args.out, spec["name"] + ".done"), "w").close()


def main():
    parser = argparse.ArgumentParser(prog="python -m distill", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    prompts = commands.add_parser("prompts", help="make the beginnings of training chats")
    prompts.add_argument("--target", required=True)
    prompts.add_argument("--held-out", required=True, help="evaluation prompts, JSON")
    prompts.add_argument("--count", type=int, default=60000)
    prompts.add_argument("--out", required=True)
    runner = commands.add_parser("run", help="generate data, train the drafts of a plan")
    runner.add_argument("--target", required=True, help="GGUF of the teacher")
    runner.add_argument("--prompts", required=True)
    runner.add_argument("--drafts", required=True, help="plan, JSON")
    runner.add_argument("--out", required=True, help="finished drafts found here are kept")
    runner.add_argument("--device")
    writer = commands.add_parser("export", help="a packed draft to GGUF")
    writer.add_argument("pack", help="path without the part's number")
    writer.add_argument("--target", required=True)
    writer.add_argument("--out", required=True)
    writer.add_argument("--matrices", default="Q8_0", choices=["Q4_0", "Q4_1", "Q8_0", "F16"])
    writer.add_argument("--embedding", default="Q8_0", choices=["Q4_0", "Q4_1", "Q8_0", "F16"])
    args = parser.parse_args()
    if args.command == "prompts":
        from .prompts import make_prompts
        make_prompts(args.target, args.held_out, args.count, args.out)
    elif args.command == "run":
        run(args)
    else:
        spec, kept_ids, arrays = export.unpack(args.pack)
        export.write_gguf(args.target, spec, kept_ids, arrays, args.out, args.matrices,
                          args.embedding)


if __name__ == "__main__":
    main()
