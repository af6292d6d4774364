"""The student: a llama of any width and depth, with a head for some of the ids only.

Row i of its embedding is id kept_ids[i]; the last row stands for every other id.
"""

import torch
import torch.nn.functional as F
from torch.nn.attention import sdpa_kernel

from . import blocks
from .attention import ATTENTION

PARTS = ("norm1", "norm2", "wq", "wkv", "wo", "wgu", "wd")


class Student(torch.nn.Module):
    def __init__(self, shape, kept_ids, teacher_vocab, compiled, device):
        """kept_ids: shape.vocab - 1 ids; the last row is of all others."""
        super().__init__()
        self.shape, self.compiled = shape, compiled
        width, attention = shape.width, shape.heads * shape.head_dim
        kv = shape.kv_heads * shape.head_dim
        sizes = {"norm1": (width,), "norm2": (width,), "wq": (attention, width),
                 "wkv": (2, kv, width), "wo": (width, attention),
                 "wgu": (2, shape.ffn, width), "wd": (width, shape.ffn)}
        for name, size in sizes.items():
            value = torch.ones(shape.layers, *size, device=device)
            if name in ("wo", "wd"):
                value.zero_()  # each layer starts as the identity
            elif not name.startswith("norm"):
                value.normal_(std=0.5 * size[-1] ** -0.5)
            self.register_parameter(name, torch.nn.Parameter(value))
        self.final_norm = torch.nn.Parameter(torch.ones(width, device=device))
        self.embedding = torch.nn.Parameter(torch.zeros(shape.vocab, width, device=device))
        row_of_id = torch.full((teacher_vocab,), shape.vocab - 1, device=device)
        row_of_id[kept_ids] = torch.arange(shape.vocab - 1, device=device)
        self.register_buffer("row_of_id", row_of_id)
        self.register_buffer("kept_ids", kept_ids)
        self.dtype = torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32

    @torch.no_grad()
    def start_from(self, layers):
        """layers: matrices by name, as in start.py; where they are smaller than here, the rest
        keeps its random values for inputs and zeros for outputs. Norms stay 1."""
        for i, layer in enumerate(layers):
            for name, value in layer.items():
                target = getattr(self, name)[i]
                target[tuple(slice(0, size) for size in value.shape)] = value

    def forward(self, tokens, tables):
        """tokens [rows, positions], ids of the teacher; the final normed states, [rows *
        positions, width]. tables: cos and sin for each of those tokens."""
        shape = self.shape
        rows, positions = tokens.shape
        x = F.embedding(self.row_of_id[tokens].flatten(), self.embedding).to(self.dtype)
        for norm1, norm2, wq, wkv, wo, wgu, wd in zip(*(getattr(self, p).unbind(0) for p in PARTS)):
            q, k, v = self.compiled.before_attention(x, norm1, wq, wkv, *tables, shape.eps,
                                                     shape.head_dim)
            q, k, v = (y.unflatten(0, (rows, positions)).transpose(1, 2) for y in (q, k, v))
            with sdpa_kernel(ATTENTION):
                y = F.scaled_dot_product_attention(q, k, v, is_causal=True,
                                                   enable_gqa=shape.kv_heads != shape.heads)
            x = self.compiled.after_attention(x, y.transpose(1, 2).reshape(len(x), -1), wo, norm2,
                                              wgu, wd, shape.eps)
        return self.compiled.rms_norm(x, self.final_norm, shape.eps)
