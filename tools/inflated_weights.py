"""The weights of a llama model in a larger shape: see inflate_model.py, which writes them."""

import dataclasses
import math

import gguf
import numpy as np

from weight_types import QTYPES, as_bytes, block_layout, noise_tile, quantize, row_bytes, zeros

KEPT_IDS = "tandem.draft.kept_ids"


@dataclasses.dataclass
class Shape:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    tied: bool


class Source:
    """The model that is inflated."""

    def __init__(self, path, keep_trimmed=False):
        self.reader = gguf.GGUFReader(path)
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        if self.value("general.architecture") != "llama":
            raise ValueError(f"{path} is of architecture {self.value('general.architecture')!r}")
        heads = self.value("llama.attention.head_count")
        hidden = self.value("llama.embedding_length")
        head_dim = self.value("llama.attention.key_length", hidden // heads)
        kept = self.value(KEPT_IDS)
        num_rows = int(self.tensors["token_embd.weight"].shape[1])
        self.row_of_id = None
        self.kept_rows = num_rows if keep_trimmed and kept is not None else None
        if kept is not None:
            self.row_of_id = np.full(self.value("llama.vocab_size"), num_rows - 1)
            self.row_of_id[kept] = np.arange(len(kept))
        self.shape = Shape(
            hidden=hidden, layers=self.value("llama.block_count"), heads=heads,
            kv_heads=self.value("llama.attention.head_count_kv", heads), head_dim=head_dim,
            ffn=self.value("llama.feed_forward_length"),
            vocab=num_rows if kept is None else len(self.row_of_id),
            tied="output.weight" not in self.tensors)
        if self.value("llama.rope.dimension_count", head_dim) != head_dim:
            raise ValueError(f"{path}: heads of {head_dim} are rotated in part only")

    def value(self, key, default=None):
        field = self.reader.get_field(key)
        return default if field is None else field.contents()

    def data(self, name):
        data = self.tensors[name].data
        expands = self.row_of_id is not None and self.kept_rows is None
        return data[self.row_of_id] if expands and name == "token_embd.weight" else data

    def floats(self, name):
        kind = self.tensors[name].tensor_type
        return gguf.quants.dequantize(self.data(name), kind).astype(np.float32)

    def rows(self, name, qtype, scale=1.0):
        """The matrix as bytes of `qtype` [rows, bytes], its values times `scale`."""
        tensor = self.tensors[name]
        elements, block = block_layout(qtype)
        if tensor.tensor_type != qtype or (scale != 1.0 and elements == 1):
            return as_bytes(quantize(self.floats(name) * np.float32(scale), qtype))
        data = as_bytes(self.data(name))
        if scale == 1.0:
            return data
        blocks = data.reshape(data.shape[0], -1, block).copy()
        num_scales = 2 if qtype == QTYPES["Q4_1"] else 1  # f16, at the start of the block
        scales = np.ascontiguousarray(blocks[:, :, :2 * num_scales]).view(np.float16)
        scaled = (scales.astype(np.float32) * scale).astype(np.float16)
        blocks[:, :, :2 * num_scales] = scaled.view(np.uint8)
        return blocks.reshape(data.shape)


class Inflater:
    """Makes the tensors of the larger model, one at a time."""

    def __init__(self, source, shape, types, padding):
        self.source, self.to, self.types = source, shape, types
        self.padding = padding
        self.tiles = {}
        small = source.shape
        self.wider = shape.head_dim // small.head_dim
        self.group = shape.heads // shape.kv_heads
        self.real_heads = [kv * self.group + i for kv in range(small.kv_heads)
                           for i in range(small.heads // small.kv_heads)]
        check_shapes(small, shape, max(32, block_layout(types["layers"])[0]))

    def is_real(self, layer):
        return layer < self.source.shape.layers

    def blank(self, num_rows, num_cols, qtype, noise):
        shape = (num_rows, row_bytes(num_cols, qtype))
        if not noise or self.padding == "zero":
            return zeros(shape[0] * shape[1], qtype).reshape(shape)
        block = block_layout(qtype)[1]
        if qtype not in self.tiles:
            self.tiles[qtype] = noise_tile(qtype, (1 << 22) // block * block)
        size = shape[0] * shape[1]
        tile = self.tiles[qtype]
        return np.resize(tile, size).reshape(shape)

    def rope_rows(self, heads):
        """Where the rows of Q or K go: pair i of a head to pair wider * i of its new head."""
        small = self.source.shape.head_dim
        pairs = np.arange(small // 2) * self.wider
        offsets = np.stack([2 * pairs, 2 * pairs + 1], axis=1).reshape(-1)
        return (np.array(heads)[:, None] * self.to.head_dim + offsets).reshape(-1)

    def head_rows(self, heads):
        offsets = np.arange(self.source.shape.head_dim)
        return (np.array(heads)[:, None] * self.to.head_dim + offsets).reshape(-1)

    def attention_input(self, name, qtype, num_heads, heads, rows, scale=1.0):
        """Q, K or V. The rows that widen a head are zero, idle heads are noise."""
        out = self.blank(num_heads * self.to.head_dim, self.to.hidden, qtype, noise=True)
        if name not in self.source.tensors:
            return out
        used = row_bytes(self.source.shape.hidden, qtype)
        by_head = out.reshape(num_heads, self.to.head_dim, -1)
        by_head[heads, :, :used] = zeros(used, qtype)
        out[rows, :used] = self.source.rows(name, qtype, scale)
        return out

    def attention_output(self, name, qtype):
        out = self.blank(self.to.hidden, self.to.heads * self.to.head_dim, qtype, noise=False)
        if name not in self.source.tensors:
            return out
        small = self.source.rows(name, qtype)
        width = row_bytes(self.source.shape.head_dim, qtype)
        new_width = row_bytes(self.to.head_dim, qtype)
        for i, head in enumerate(self.real_heads):
            out[:small.shape[0], head * new_width:head * new_width + width] = \
                small[:, i * width:(i + 1) * width]
        return out

    def corner(self, source_name, qtype, num_rows, num_cols, noise, zero_rows=False):
        """The small matrix at the top left; `zero_rows`: rows below it give exactly 0."""
        out = self.blank(num_rows, num_cols, qtype, noise)
        if source_name not in self.source.tensors:
            return out
        small = self.source.rows(source_name, qtype)
        if zero_rows:
            out[:, :small.shape[1]] = zeros(small.shape[1], qtype)
        out[:small.shape[0], :small.shape[1]] = small
        return out

    def norm(self, name):
        weights = np.ones(self.to.hidden, np.float32)
        if name in self.source.tensors:
            small = self.source.shape.hidden
            factor = math.sqrt(small / self.to.hidden)
            weights[:] = 0
            weights[:small] = (self.source.floats(name).astype(np.float64) * factor)
        return weights.view(np.uint8).reshape(1, -1)

    def rope_factors(self):
        factors = np.ones(self.to.head_dim // 2, np.float32)
        factors[::self.wider] = self.source.floats("rope_freqs.weight")
        return factors.view(np.uint8).reshape(1, -1)

    def tensors(self):
        """(name, dims, type, function that makes the bytes), in the order to write."""
        to, small, types = self.to, self.source.shape, self.types
        f32 = QTYPES["F32"]
        layers, embedding, head = types["layers"], types["embedding"], types["head"]
        kv_heads = list(range(small.kv_heads))
        q_scale = math.sqrt(self.wider)
        name = "token_embd.weight"
        num_rows = self.source.kept_rows or to.vocab
        yield name, (num_rows, to.hidden), embedding, lambda: self.corner(
            name, embedding, num_rows, to.hidden, noise=False)
        if "rope_freqs.weight" in self.source.tensors:
            yield "rope_freqs.weight", (to.head_dim // 2,), f32, self.rope_factors
        for i in range(to.layers):
            prefix = f"blk.{i}."
            for norm in ("attn_norm.weight", "ffn_norm.weight"):
                yield prefix + norm, (to.hidden,), f32, lambda n=prefix + norm: self.norm(n)
            q, k, v = (prefix + f"attn_{c}.weight" for c in "qkv")
            yield q, (to.heads * to.head_dim, to.hidden), layers, lambda n=q: self.attention_input(
                n, layers, to.heads, self.real_heads, self.rope_rows(self.real_heads), q_scale)
            kv_shape = (to.kv_heads * to.head_dim, to.hidden)
            yield k, kv_shape, layers, lambda n=k: self.attention_input(
                n, layers, to.kv_heads, kv_heads, self.rope_rows(kv_heads))
            yield v, kv_shape, layers, lambda n=v: self.attention_input(
                n, layers, to.kv_heads, kv_heads, self.head_rows(kv_heads))
            out = prefix + "attn_output.weight"
            yield out, (to.hidden, to.heads * to.head_dim), layers, (
                lambda n=out: self.attention_output(n, layers))
            for part in ("ffn_gate.weight", "ffn_up.weight"):
                yield prefix + part, (to.ffn, to.hidden), layers, lambda n=prefix + part: (
                    self.corner(n, layers, to.ffn, to.hidden, noise=True))
            down = prefix + "ffn_down.weight"
            yield down, (to.hidden, to.ffn), layers, lambda n=down: self.corner(
                n, layers, to.hidden, to.ffn, noise=False)
        yield "output_norm.weight", (to.hidden,), f32, lambda: self.norm("output_norm.weight")
        if not to.tied:
            source_name = "token_embd.weight" if small.tied else "output.weight"
            yield "output.weight", (to.vocab, to.hidden), head, lambda: self.corner(
                source_name, head, to.vocab, to.hidden, noise=True,
                zero_rows=True)


def check_shapes(small, to, block):
    if to.tied and not small.tied:
        raise ValueError("the model has a head of its own, the shape ties it to the embedding")
    for what in ("hidden", "layers", "kv_heads", "ffn", "vocab"):
        if getattr(to, what) < getattr(small, what):
            raise ValueError(f"{what} {getattr(to, what)} is below the model's "
                             f"{getattr(small, what)}")
    if to.heads % to.kv_heads or to.heads // to.kv_heads < small.heads // small.kv_heads:
        raise ValueError(f"{to.heads}/{to.kv_heads} heads cannot hold {small.heads}/"
                         f"{small.kv_heads}: a KV head needs its query heads")
    if to.head_dim % small.head_dim:
        raise ValueError(f"heads of {to.head_dim} are no multiple of {small.head_dim}")
    for what in ("hidden", "head_dim", "ffn"):
        if getattr(small, what) % block or getattr(to, what) % block:
            raise ValueError(f"{what} must be a multiple of {block}")
