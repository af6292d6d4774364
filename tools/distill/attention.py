"""Attention of one new token of each row over the cache, when many rows go in step.

torch's kernels make tiles of 64 or 128 queries of one key head; here each has three. The
kernel below takes a tile of 16 and so is bound by the keys and values that it reads.
"""

import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def plain(queries, keys, values):
    """queries [rows, kv_heads, queries of one key head, head_dim]; keys and values [rows,
    kv_heads, positions seen, head_dim], of any strides. Shaped as the queries."""
    with sdpa_kernel(ATTENTION):
        return F.scaled_dot_product_attention(queries, keys, values)


def fastest(kv_heads, queries, head_dim, device):
    """The kernel where it runs and agrees with `plain`, else `plain`."""
    if torch.device(device).type != "cuda":
        return plain
    try:
        from .attention_triton import attend
        make = torch.Generator(device).manual_seed(0)
        cache = torch.randn(2, 5, kv_heads, 192, head_dim, generator=make, device=device).bfloat16()
        for seen in (1, 64, 129):
            q = torch.randn(5, kv_heads, queries, head_dim, generator=make,
                            device=device).bfloat16()
            k, v = cache[:, :, :, :seen]
            wrong = (attend(q, k, v).float() - plain(q, k, v).float()).abs().max()
            if not wrong < 0.05:
                raise ValueError(f"{float(wrong):.3f} off with {seen} positions")
        return attend
    except Exception as error:  # whatever a compiler may say: it is only slower without
        print(f"decodes with torch's attention: {error}", file=sys.stderr)
        return plain
