"""The teacher: a llama GGUF, dequantized, with a cache for decoding many rows in step."""

import numpy as np
import torch
import torch.nn.functional as F

from . import attention, blocks
from .model_file import read_gguf


class Teacher:
    """Weights in bfloat16 on a GPU, float32 on a CPU. Layers are stacked: [layers, ...]."""

    def __init__(self, path, device):
        self.shape, arrays = read_gguf(path)
        self.device = device
        self.dtype = torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32
        self.compiled = blocks.Compiled(device)
        self.attend = attention.fastest(self.shape.kv_heads,
                                        self.shape.heads // self.shape.kv_heads,
                                        self.shape.head_dim, device)

        def tensor(array):
            return torch.tensor(array, device=device)

        def stack(*names):
            rows = [np.stack([arrays[f"blk.{i}.{name}.weight"] for name in names])
                    for i in range(self.shape.layers)]
            return tensor(np.stack(rows))

        self.embedding = tensor(arrays["token_embd.weight"]).to(self.dtype)
        self.final_norm = tensor(arrays["output_norm.weight"])
        self.layers = {
            "norm1": stack("attn_norm")[:, 0], "norm2": stack("ffn_norm")[:, 0],
            "wq": stack("attn_q")[:, 0].to(self.dtype),
            "wkv": stack("attn_k", "attn_v").to(self.dtype),
            "wo": stack("attn_output")[:, 0].to(self.dtype),
            "wgu": stack("ffn_gate", "ffn_up").to(self.dtype),
            "wd": stack("ffn_down")[:, 0].to(self.dtype),
        }

    def new_cache(self, rows, positions):
        """[layers, k and v, rows, kv_heads, positions, head_dim]."""
        shape = self.shape
        return torch.zeros(shape.layers, 2, rows, shape.kv_heads, positions, shape.head_dim,
                           dtype=self.dtype, device=self.device)

    def decode(self, tokens, position, cache, cos, sin):
        """One token for each row; the final normed state, [rows, width]."""
        shape, layers = self.shape, self.layers
        rows = len(tokens)
        x = F.embedding(tokens, self.embedding)
        cos = cos[position].expand(rows, -1)
        sin = sin[position].expand(rows, -1)
        for i in range(shape.layers):
            q, k, v = self.compiled.before_attention(
                x, layers["norm1"][i], layers["wq"][i], layers["wkv"][i], cos, sin, shape.eps,
                shape.head_dim)
            cache[i, 0, :, :, position] = k
            cache[i, 1, :, :, position] = v
            # The query heads of one key head are queries of one position.
            q = q.reshape(rows, shape.kv_heads, -1, shape.head_dim)
            seen = cache[i, :, :, :, : position + 1]
            attended = self.attend(q, seen[0], seen[1])
            x = self.compiled.after_attention(x, attended.reshape(rows, -1), layers["wo"][i],
                                              layers["norm2"][i], layers["wgu"][i],
                                              layers["wd"][i], shape.eps)
        return self.compiled.rms_norm(x, self.final_norm, shape.eps)
