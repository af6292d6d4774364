"""The kernel of attention.py; needs Triton, and head_dim a power of two."""

import torch
import triton
import triton.language as tl

BLOCK = 64  # positions
TILE = 16  # queries: what a matrix unit takes at least


@triton.jit(do_not_specialize=["seen"])
def kernel(q, k, v, out, seen, row_stride, head_stride, scale, queries: tl.constexpr,
           head_dim: tl.constexpr, tile: tl.constexpr, block: tl.constexpr):
    row, head = tl.program_id(0), tl.program_id(1)
    index, column = tl.arange(0, tile), tl.arange(0, head_dim)
    position = tl.arange(0, block)
    begin = row.to(tl.int64) * row_stride + head * head_stride
    own = (row * tl.num_programs(1) + head) * queries * head_dim
    place = own + index[:, None] * head_dim + column[None, :]
    there = index[:, None] < queries
    query = tl.load(q + place, mask=there, other=0.0)
    highest = tl.full((tile,), -1e30, tl.float32)
    total = tl.zeros((tile,), tl.float32)
    sums = tl.zeros((tile, head_dim), tl.float32)
    for first in range(0, seen, block):
        known = first + position < seen
        part = begin + (first + position)[:, None] * head_dim + column[None, :]
        keys = tl.load(k + part, mask=known[:, None], other=0.0)
        values = tl.load(v + part, mask=known[:, None], other=0.0)
        score = tl.dot(query, tl.trans(keys)) * scale
        score = tl.where(known[None, :], score, -1e30)
        peak = tl.maximum(highest, tl.max(score, 1))
        share = tl.exp2(score - peak[:, None])
        shrink = tl.exp2(highest - peak)
        total = total * shrink + tl.sum(share, 1)
        sums = sums * shrink[:, None] + tl.dot(share.to(values.dtype), values)
        highest = peak
    tl.store(out + place, (sums / total[:, None]).to(out.dtype.element_ty), mask=there)


def attend(queries, keys, values):
    """As attention.plain; positions of keys and values lie one after the other."""
    rows, heads, count, head_dim = queries.shape
    assert keys.stride() == values.stride() and keys.stride()[2:] == (head_dim, 1)
    queries = queries.contiguous()
    out = torch.empty_like(queries)
    kernel[rows, heads](queries, keys, values, out, keys.shape[2], keys.stride(0), keys.stride(1),
                        head_dim ** -0.5 * 1.4426950408889634, count, head_dim, TILE, BLOCK,
                        num_warps=2)
    return out
