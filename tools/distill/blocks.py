"""The two halves of a llama layer around its attention, for teacher and student alike.

Everything works on flattened tokens, [tokens, width], so that one compiled kernel serves
every split of the tokens into sequences. RoPE rotates neighbouring pairs, as weights in
GGUF files expect.
"""

import torch
import torch.nn.functional as F


def rms_norm(x, weight, eps):
    scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + eps)
    return (x.float() * scale * weight).to(x.dtype)


def rope(x, cos, sin):
    """x [tokens, heads, head_dim]; cos and sin [tokens, head_dim / 2]."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)


def rope_table(num_positions, head_dim, base, device):
    """cos and sin, each [positions, head_dim / 2], float32."""
    rates = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.arange(num_positions, dtype=torch.float64)[:, None] * rates
    return angles.cos().float().to(device), angles.sin().float().to(device)


def before_attention(x, norm, wq, wkv, cos, sin, eps: float, head_dim: int):
    """q [tokens, heads, head_dim], k and v [tokens, kv_heads, head_dim]."""
    normed = rms_norm(x, norm, eps)
    weight = torch.cat((wq.to(x.dtype), wkv.to(x.dtype).flatten(0, 1)))
    qkv = F.linear(normed, weight).unflatten(-1, (-1, head_dim))
    num_heads, num_kv_heads = wq.shape[0] // head_dim, wkv.shape[1] // head_dim
    q, k, v = qkv.split((num_heads, num_kv_heads, num_kv_heads), dim=1)
    return rope(q, cos, sin), rope(k, cos, sin), v


def after_attention(x, attended, wo, norm, wgu, wd, eps: float):
    x = x + F.linear(attended, wo.to(x.dtype))
    gate, up = F.linear(rms_norm(x, norm, eps), wgu.to(x.dtype).flatten(0, 1)).chunk(2, -1)
    return x + F.linear(F.silu(gate) * up, wd.to(x.dtype))


class Compiled:
    """The functions above, compiled once each on a GPU, plain on a CPU."""

    def __init__(self, device):
        if torch.device(device).type == "cuda":
            torch._dynamo.config.cache_size_limit = 64
            torch._dynamo.config.suppress_errors = True  # a failed compilation runs as it is
            self.wrap = lambda function: torch.compile(function, dynamic=False)
        else:
            self.wrap = lambda function: function
        self.before_attention = self.wrap(before_attention)
        self.after_attention = self.wrap(after_attention)
        self.rms_norm = self.wrap(rms_norm)
