"""How often a draft is right, against the teacher's text: no tokens are generated here.

Text of temperature 0 gives greedy acceptance, by class of prompt. Text sampled at another
gives what the two rules accept there: REJECTION the overlap sum(min(p, q)), COUPLED how often
target and draft, each with the same Gumbel noise on its own logits, choose the same id.
"""

import torch

from . import blocks
from .export import embedding_type

DRAWS = 4  # of noise for each token
ROWS = 24  # at once
ANSWER_TOKENS = 128
CHAIN = 4
SHARPNESS = (0.8, 1.0, 1.25)  # the draft's logits times this, under COUPLED


class Plain:
    """The functions of blocks, not compiled: batches here have shapes of their own."""
    before_attention = staticmethod(blocks.before_attention)
    after_attention = staticmethod(blocks.after_attention)
    rms_norm = staticmethod(blocks.rms_norm)


def rounded(matrix, kind):
    """The values of a matrix after a round trip through Q4_0, Q4_1 or Q8_0."""
    groups = matrix.detach().float().unflatten(-1, (-1, 32))
    if kind == "Q8_0":
        scale = groups.abs().amax(-1, keepdim=True) / 127
        codes = torch.round(groups / scale.clamp(min=1e-12))
    elif kind == "Q4_1":
        least = groups.amin(-1, keepdim=True)
        scale = (groups.amax(-1, keepdim=True) - least) / 15
        inverse = torch.where(scale == 0, 0.0, 1 / scale)
        codes = torch.trunc((groups - least) * inverse + 0.5).clamp(0, 15)
        return (codes * scale.half().float() + least.half().float()).flatten(-2)
    else:
        largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
        scale = largest / -8
        inverse = torch.where(scale == 0, 0.0, 1 / scale)
        codes = torch.trunc(groups * inverse + 8.5).clamp(0, 15) - 8
    return (codes * scale.half().float()).flatten(-2)


class Rounded:
    """A draft as it is after export: its matrices in `kind`, its embedding in the type
    beside it. Gradients made inside are those of the rounded values."""

    def __init__(self, student, kind):
        self.student, self.kind, self.saved = student, kind, {}

    def __enter__(self):
        for name, parameter in self.student.named_parameters():
            if "norm" not in name:
                self.saved[name] = parameter.data
                kind = embedding_type(self.kind) if name == "embedding" else self.kind
                parameter.data = rounded(parameter, kind)

    def __exit__(self, *_):
        for name, parameter in self.student.named_parameters():
            parameter.data = self.saved.get(name, parameter.data)


def answers(student, teacher, data, rows):
    """For each of `rows`: the draft's states and the indices of the answer's predictions."""
    length = data.tokens.shape[1]
    table = blocks.rope_table(length, student.shape.head_dim, student.shape.rope_base,
                              teacher.device)
    compiled, student.compiled = student.compiled, Plain
    try:
        for begin in range(0, len(rows), ROWS):
            part = rows[begin:begin + ROWS]
            states = student(data.tokens[part].long(), tuple(t.repeat(len(part), 1) for t in table))
            for row, state in zip(part, states.unflatten(0, (len(part), length))):
                counted = (data.weight[row] >= 1).nonzero()[:ANSWER_TOKENS, 0]
                if len(counted) >= CHAIN:
                    yield row, state[counted], counted
    finally:
        student.compiled = compiled


def mean(values):
    return sum(values) / max(1, len(values))


@torch.no_grad()
def greedy(student, teacher, data, classes):
    """Acceptance on the rows of temperature 0, which come first, one for each class given."""
    by_class, chain = {}, []
    for row, states, counted in answers(student, teacher, data, list(range(len(classes)))):
        logits = (states @ student.embedding.to(states.dtype).T)[:, :-1]
        hits = logits.argmax(-1) == student.row_of_id[data.argmax[row][counted].long()]
        by_class.setdefault(classes[row], []).append(float(hits.float().mean()))
        runs = torch.stack([hits.float().roll(-i)[:len(hits) - CHAIN + 1] for i in range(CHAIN)])
        chain.append(float(runs.cumprod(0).sum(0).mean()))
    return {"greedy": mean(sum(by_class.values(), [])), "chain_of_4": mean(chain)} | {
        f"greedy/{name}": mean(values) for name, values in sorted(by_class.items())}


def matches(target, draft, kept_ids, generator):
    """Shares of tokens where both choose the same id with the same noise, by sharpness of
    the draft."""
    found = dict.fromkeys(SHARPNESS, 0.0)
    for _ in range(DRAWS):
        uniform = torch.rand(target.shape, device=target.device, generator=generator)
        noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        choice = (target + noise).argmax(-1)
        for sharpness in SHARPNESS:
            guess = kept_ids[(sharpness * draft + noise[:, kept_ids]).argmax(-1)]
            found[sharpness] += float((guess == choice).float().mean()) / DRAWS
    return found


@torch.no_grad()
def sampled(student, teacher, data, rows, temperature):
    """What each rule accepts on rows that were sampled at `temperature`."""
    generator = torch.Generator(device=teacher.device).manual_seed(0)
    overlap, coupled = [], {sharpness: [] for sharpness in SHARPNESS}
    for row, states, counted in answers(student, teacher, data, rows):
        draft = (states @ student.embedding.to(states.dtype).T).float()[:, :-1] / temperature
        target = (data.states[row][counted] @ teacher.embedding.T).float() / temperature
        known = torch.softmax(target, -1)[:, student.kept_ids]
        overlap.append(float(torch.minimum(known, torch.softmax(draft, -1)).sum(-1).mean()))
        for sharpness, share in matches(target, draft, student.kept_ids, generator).items():
            coupled[sharpness].append(share)
    return {"rejection": mean(overlap), "coupled": mean(coupled[1.0])} | {
        f"coupled, draft logits x {s}": mean(coupled[s]) for s in SHARPNESS if s != 1.0}


def report(student, teacher, data, classes, temperatures):
    """Everything; `temperatures` [rows] of the data."""
    result = greedy(student, teacher, data, classes)
    for kind in ("Q8_0", "Q4_1", "Q4_0"):
        with Rounded(student, kind):
            short = greedy(student, teacher, data, classes)
            result[f"greedy, {kind}"] = short["greedy"]
            result[f"chain_of_4, {kind}"] = short["chain_of_4"]
    for heat in sorted(set(temperatures) - {0.0}):
        rows = [row for row, t in enumerate(temperatures) if t == heat]
        found = sampled(student, teacher, data, rows, heat)
        result |= {f"{name} at {heat}": value for name, value in found.items()}
    return result
