"""Trains one student on data that stays on the device; time decides how long."""

import contextlib
import json
import math
import os
import random
import sys
import time

import torch

from . import blocks
from .export import parts_of
from .loss import CHUNK, HeadLoss, chunk_gradient
from .measure import Rounded, greedy, report
from .model_file import Shape, read_gguf
from .muon import Muon
from .start import init_embedding, shortened
from .student import Student


def count_ids(datasets, vocab):
    """How often the teacher wrote each id in answers; in what it read, one in eight counts."""
    counts = torch.zeros(vocab, device=datasets[0].tokens.device)
    for data in datasets:
        written = data.weight[:, :-1].flatten() >= 1
        tokens = data.tokens[:, 1:].flatten().long()
        counts += torch.bincount(tokens[written], minlength=vocab)
        counts += torch.bincount(tokens, minlength=vocab) / 8
    return counts


def shape_of(spec, teacher_shape):
    """Of a draft's description: vocab, width, layers, heads, kv_heads, ffn."""
    layers = spec["layers"]
    return Shape(vocab=spec["vocab"], width=spec["width"],
                 layers=layers if isinstance(layers, int) else len(layers), heads=spec["heads"],
                 kv_heads=spec["kv_heads"], ffn=spec["ffn"],
                 head_dim=teacher_shape.head_dim, rope_base=teacher_shape.rope_base,
                 eps=teacher_shape.eps)


def new_student(spec, teacher, id_counts, tokens):
    """tokens [rows, positions]: what to choose heads and neurons by, if layers are merged."""
    if "start" in spec:
        return trained_before(spec["start"], teacher)
    shape = shape_of(spec, teacher.shape)
    kept = id_counts.topk(shape.vocab - 1).indices
    student = Student(shape, kept, teacher.shape.vocab, teacher.compiled, teacher.device)
    init_embedding(student, teacher, id_counts)
    if not isinstance(spec["layers"], int):
        layers = shortened(teacher, spec["layers"], shape.heads, shape.kv_heads, shape.ffn, tokens)
        student.start_from(layers)
    return student


@torch.no_grad()
def trained_before(path, teacher):
    """The student that a GGUF of a trimmed draft holds."""
    import gguf
    shape, arrays = read_gguf(path)
    kept = torch.tensor(gguf.GGUFReader(path).get_field("tandem.draft.kept_ids").contents(),
                        device=teacher.device)
    student = Student(shape, kept, teacher.shape.vocab, teacher.compiled, teacher.device)
    for name, part in parts_of(student.state_dict()).items():
        part.copy_(torch.tensor(arrays[name]))
    return student


def optimizers(student, spec):
    matrices = [student.wq, student.wkv, student.wo, student.wgu, student.wd]
    others = [student.norm1, student.norm2, student.final_norm, student.embedding]
    on_gpu = student.embedding.is_cuda
    return [Muon(matrices, lr=spec["matrix_lr"]),
            torch.optim.AdamW(others, lr=spec["lr"], betas=(0.9, 0.99), weight_decay=0.0,
                              fused=on_gpu)]


def learning_rate(progress):
    """Factor: up for 2 %, level, from 35 % on down to nothing."""
    return min(1.0, progress / 0.02 + 0.02, max(0.0, (1.0 - progress) / 0.65))


def batches(datasets, tokens_per_step, seed):
    """Endless (dataset, rows), each row once an epoch."""
    shuffle = random.Random(seed)
    while True:
        parts = []
        for index, data in enumerate(datasets):
            rows, positions = data.tokens.shape
            size = max(1, tokens_per_step // positions)
            order = torch.randperm(rows)
            # A rest that does not fill a step waits for another epoch's order.
            parts += [(index, order[i:i + size]) for i in range(0, max(1, rows - size + 1), size)]
        shuffle.shuffle(parts)
        for index, rows in parts:
            yield datasets[index], rows.to(datasets[index].tokens.device)


class Tables:
    """RoPE tables of flattened batches, made once for each batch shape."""

    def __init__(self, shape, device):
        self.shape, self.device, self.known = shape, device, {}

    def of(self, rows, positions):
        if (rows, positions) not in self.known:
            table = blocks.rope_table(positions, self.shape.head_dim, self.shape.rope_base,
                                      self.device)
            self.known[rows, positions] = tuple(t.repeat(rows, 1) for t in table)
        return self.known[rows, positions]


def loss_of(student, teacher_head, data, rows, tables, sharpness, kernel):
    tokens = data.tokens[rows].long()
    states = student(tokens, tables.of(*tokens.shape))
    weight = data.weight[rows].flatten().float()
    counted = weight.nonzero()[:, 0]
    # Whole chunks only, so that one compiled kernel does: the rest weighs nothing.
    padding = counted.new_zeros(-len(counted) % CHUNK)
    weight = torch.cat((weight[counted], torch.zeros(len(padding), device=weight.device)))
    counted = torch.cat((counted, padding))
    best_row = student.row_of_id[data.argmax[rows].flatten()[counted].long()]
    return HeadLoss.apply(states[counted], student.embedding,
                          data.states[rows].flatten(0, 1)[counted], teacher_head,
                          data.log_sum[rows].flatten()[counted], best_row, weight, sharpness,
                          kernel)


def format_of(student, spec):
    """What a draft that is shipped in `rounded` is trained in: it learns to live with it."""
    return Rounded(student, spec["rounded"]) if "rounded" in spec else contextlib.nullcontext()


def train(spec, teacher, datasets, held_out, id_counts, out, seed=0):
    """held_out: data, classes and temperatures, as measure.report wants them. Trains by `spec`,
    writes `out`/<name>.pt and .json, and returns the student."""
    torch.manual_seed(seed)
    student = new_student(spec, teacher, id_counts, datasets[0].tokens[:32])
    path = os.path.join(out, spec["name"])
    if os.path.exists(path + ".pt"):
        student.load_state_dict(torch.load(path + ".pt", map_location=teacher.device))
        print(f"{spec['name']}  already trained", file=sys.stderr)
        return student
    kernel = teacher.compiled.wrap(chunk_gradient)
    teacher_head = teacher.embedding[student.kept_ids].contiguous()
    tables, steppers = Tables(student.shape, teacher.device), optimizers(student, spec)
    peak = [[group["lr"] for group in stepper.param_groups] for stepper in steppers]
    begin, step, visited, log, next_report = None, 0, 0, [], 0.0
    for data, rows in batches(datasets, spec["tokens_per_step"], seed):
        spent = 0.0 if begin is None else time.time() - begin
        progress = spent / spec["seconds"]
        if progress >= 1.0 or step >= spec.get("steps", math.inf):
            break
        with format_of(student, spec):
            loss, matches = loss_of(student, teacher_head, data, rows, tables,
                                    spec.get("sharpness", 0.2), kernel)
            loss.backward()
        for stepper, rates in zip(steppers, peak):
            for group, rate in zip(stepper.param_groups, rates):
                group["lr"] = rate * learning_rate(progress)
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        step, visited = step + 1, visited + len(rows) * data.tokens.shape[1]
        if step == 3:  # compiled by now: time counts from here
            loss.item()
            begin = time.time()
        if begin is not None and spent >= next_report:
            values = {"step": step, "seconds": round(spent, 1), "visited": visited,
                      "loss": loss.item(), "matches": matches.item()}
            if len(log) % 8 == (0 if "start" in spec else 7):
                with format_of(student, spec):
                    values |= greedy(student, teacher, *held_out[:2])
            log.append(values)
            print(f"{spec['name']}  " + "  ".join(
                f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items()
                if not k.startswith("greedy/")), file=sys.stderr, flush=True)
            next_report = spent + max(2.0, spec["seconds"] / 25)
    torch.save(student.state_dict(), path + ".pt")
    result = report(student, teacher, *held_out)
    summary = {"spec": spec, "parameters": student.shape.parameters, "steps": step,
               "visited": visited, "result": result, "log": log}
    with open(path + ".json", "w") as file:
        json.dump(summary, file, indent=1)
    print(f"{spec['name']}  done  {student.shape.parameters / 1e6:.1f} M parameters  {result}",
          file=sys.stderr, flush=True)
    return student
