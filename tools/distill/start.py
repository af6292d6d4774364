"""Where a draft of the teacher's width starts: at the teacher, made shorter and narrower.

Neighbouring layers are merged into one that runs them side by side: its heads and its
feed-forward are those of both. Then the heads and neurons that carry least are dropped, and
what reads them is fitted again, by least squares, to what all of them gave.
"""

import torch
import torch.nn.functional as F
from torch.nn.attention import sdpa_kernel

from . import blocks
from .attention import ATTENTION


def merged(layers, group):
    """The layers of `group` side by side, float32, their norms' weights inside the matrices."""
    parts = {"wq": [], "wkv": [], "wo": [], "wgu": [], "wd": []}
    for i in group:
        for name, norm in (("wq", "norm1"), ("wkv", "norm1"), ("wgu", "norm2")):
            parts[name].append(layers[name][i].float() * layers[norm][i].float())
        for name in ("wo", "wd"):
            parts[name].append(layers[name][i].float())
    outputs = {"wq": 0, "wkv": 1, "wo": 1, "wgu": 1, "wd": 1}
    return {name: torch.cat(values, outputs[name]) for name, values in parts.items()}


def attended(x, layer, tables, shape, rows):
    """What the heads give, [tokens, heads * head_dim]."""
    ones = torch.ones(shape.width, device=x.device)
    q, k, v = blocks.before_attention(x, ones, layer["wq"], layer["wkv"], *tables, shape.eps,
                                      shape.head_dim)
    q, k, v = (y.unflatten(0, (rows, -1)).transpose(1, 2) for y in (q, k, v))
    with sdpa_kernel(ATTENTION):
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return y.transpose(1, 2).reshape(len(x), -1)


def hidden(x, layer, shape):
    """What the neurons of the feed-forward give, [tokens, ffn]."""
    normed = blocks.rms_norm(x, torch.ones(shape.width, device=x.device), shape.eps)
    gate, up = F.linear(normed, layer["wgu"].flatten(0, 1).to(x.dtype)).chunk(2, -1)
    return F.silu(gate) * up


def keep(features, reader, group_size, count):
    """The `count` groups of features that give the reader [outputs, features] most, as
    indices of features; and the reader fitted to them."""
    features = features.float()
    energy = (features.square().mean(0) * reader.square().sum(0)).unflatten(0, (-1, group_size))
    groups = energy.sum(-1).topk(count).indices.sort().values
    kept = (groups[:, None] * group_size
            + torch.arange(group_size, device=groups.device)).flatten()
    gram = features.double().T @ features.double()
    inside = gram[kept][:, kept]
    inside.diagonal().add_(1e-3 * inside.diagonal().mean())
    fitted = torch.linalg.solve(inside, gram[kept] @ reader.double().T).T
    return kept, fitted.float()


@torch.no_grad()
def shortened(teacher, groups, heads, kv_heads, ffn, tokens):
    """Layers of one shape, each of a group of the teacher's; what is dropped is chosen by
    running `tokens` [rows, positions]. A smaller layer is padded with nothing."""
    shape, rows = teacher.shape, len(tokens)
    queries = shape.heads // shape.kv_heads
    if heads != kv_heads * queries:
        raise ValueError(f"{heads} heads with {kv_heads} KV heads; of this teacher each KV head "
                         f"has {queries}")
    cos, sin = blocks.rope_table(tokens.shape[1], shape.head_dim, shape.rope_base, tokens.device)
    tables = (cos.repeat(rows, 1), sin.repeat(rows, 1))
    x = F.embedding(tokens.flatten().long(), teacher.embedding)
    head = shape.head_dim
    layers = []
    for group in groups:
        layer = merged(teacher.layers, group)
        result = dict(layer)
        y = attended(x, layer, tables, shape, rows)
        if kv_heads < layer["wkv"].shape[1] // head:
            kept, result["wo"] = keep(y, layer["wo"], queries * head, kv_heads)
            result["wq"] = layer["wq"][kept]
            kv = kept.unflatten(0, (kv_heads, queries, head))[:, 0] // (queries * head) * head
            kv = (kv + torch.arange(head, device=kv.device)).flatten()
            result["wkv"] = layer["wkv"][:, kv]
        x = x + F.linear(y, layer["wo"].to(x.dtype))
        h = hidden(x, layer, shape)
        if ffn < layer["wd"].shape[1]:
            kept, result["wd"] = keep(h, layer["wd"], 1, ffn)
            result["wgu"] = layer["wgu"][:, kept]
        x = x + F.linear(h, layer["wd"].to(x.dtype))
        layers.append(result)
    return layers


@torch.no_grad()
def init_embedding(student, teacher, id_counts):
    """The teacher's embedding, or its projection on the directions that carry most of it,
    weighted by how often ids come. The last row is the mean of all ids that are not kept."""
    shape, kept = student.shape, student.kept_ids
    rows = teacher.embedding.float()
    counts = id_counts.to(rows.device).float()
    others = torch.ones_like(counts, dtype=torch.bool)
    others[kept] = False
    rare = rows[others] if bool(others.any()) else rows
    table = torch.cat((rows[kept], rare.mean(0, keepdim=True)))
    if shape.width == teacher.shape.width:
        student.embedding.copy_(table)
        student.final_norm.copy_(teacher.final_norm)
        return
    # In the head states meet the embedding through the final norm's weight.
    scaled = rows * teacher.final_norm[None]
    weight = (counts + 1).sqrt()[:, None]
    gram = (rows * weight).T @ (rows * weight)
    gram = gram / gram.trace()
    head = (scaled * weight).T @ (scaled * weight)
    gram = gram + head / head.trace()
    directions = torch.linalg.eigh(gram.double())[1][:, -shape.width:].flip(-1).float()
    student.embedding.copy_(table @ directions)
