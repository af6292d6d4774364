#!/usr/bin/env python3
"""Writes a llama GGUF in a larger shape that computes the same function.

    tools/inflate_model.py smollm2-135m-instruct.q4_1.gguf --shape 8b --out 8b.q4_0.gguf
    tools/inflate_model.py smollm2-135m-instruct.first6.q4_1.gguf --shape 1b --out 1b.q4_0.gguf

Text, perplexity and acceptance are the small model's own, at the cost of the large one: for
measuring speed and memory of shapes whose weights cannot be had. Always say so.

How: the hidden dimension, the FFN and the vocabulary are padded at their ends; a KV head
keeps its query heads and gets idle ones; idle heads contribute nothing; layers beyond the
model's add nothing to the residual stream. RMS norms divide by the root of the mean over all
dimensions, so norm weights are times sqrt(hidden/new) and epsilon times hidden/new. A head of
64 becomes one of 128 with RoPE pair i at pair 2i, where the angles are the same, and Q times
sqrt(2) for the softmax scale that went with the width; V is padded at the end of each head.

What stays exact: padding ends at blocks of 32 inputs, and Q, K permute outputs only. So where
the output type is that of the model, codes are kept as they are; only Q's block scales, times
sqrt(2), are rounded to f16 again. Any other type is requantized from float.

Padding is noise where nothing can come of it (weights that meet inputs which are always zero,
heads and FFN columns that nobody reads), since a GPU draws less power on zeros and then runs
faster than on real weights; --padding zero makes all of it zero. Ids beyond the model's
vocabulary are marked unused and have logit 0: they must be masked when sampling.

A trimmed draft gets a row for every id again, ids it left out the one that stood for them all:
the large shape's head has its full cost. It may then propose such an id, which is refused. With
--keep-trimmed its head stays small.

Needs the packages gguf and numpy; memory for one matrix.
"""

import argparse
import dataclasses
import math
import os
import sys

import gguf
import numpy as np

QTYPES = {name: gguf.GGMLQuantizationType[name]
          for name in ("Q4_0", "Q4_1", "Q8_0", "F16", "BF16", "F32")}
UNUSED_TOKEN = 5
KEPT_IDS = "tandem.draft.kept_ids"
NOISE_SCALE = 0.004  # of a block's codes; 16-bit noise has the same spread


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


SHAPES = {
    "8b": Shape(4096, 32, 32, 8, 128, 14336, 128256, False),  # Llama-3-8B
    "1b": Shape(2048, 16, 32, 8, 64, 8192, 128256, True),  # Llama-3.2-1B
    "0.5b": Shape(1280, 16, 20, 5, 64, 5120, 128256, True),
    "0.3b": Shape(1024, 12, 16, 4, 64, 3584, 128256, True),
    "small": Shape(1024, 32, 16, 4, 128, 2048, 49408, False),
}


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
        if tensor.tensor_type != qtype:
            return as_bytes(gguf.quants.quantize(self.floats(name) * np.float32(scale), qtype))
        data = as_bytes(self.data(name))
        if scale == 1.0:
            return data
        if qtype in (QTYPES["F16"], QTYPES["BF16"], QTYPES["F32"]):
            return as_bytes(gguf.quants.quantize(self.floats(name) * np.float32(scale), qtype))
        block = gguf.GGML_QUANT_SIZES[qtype][1]
        blocks = data.reshape(data.shape[0], -1, block).copy()
        num_scales = 2 if qtype == QTYPES["Q4_1"] else 1  # f16, at the start of the block
        scales = np.ascontiguousarray(blocks[:, :, :2 * num_scales]).view(np.float16)
        scaled = (scales.astype(np.float32) * scale).astype(np.float16)
        blocks[:, :, :2 * num_scales] = scaled.view(np.uint8)
        return blocks.reshape(data.shape)


def as_bytes(array):
    return np.ascontiguousarray(array).view(np.uint8).reshape(array.shape[0], -1)


def row_bytes(num_elements, qtype):
    elements, size = gguf.GGML_QUANT_SIZES[qtype]
    return num_elements // elements * size


def noise_tile(qtype, num_bytes):
    """A stretch of blocks with random codes and one scale; repeated to fill matrices."""
    random = np.random.default_rng(1)
    elements, size = gguf.GGML_QUANT_SIZES[qtype]
    num_blocks = num_bytes // size
    if elements == 1:
        spread = NOISE_SCALE * 4.6  # of codes -8 to 7
        values = random.standard_normal((1, num_blocks), dtype=np.float32) * np.float32(spread)
        return as_bytes(gguf.quants.quantize(values, qtype)).reshape(-1)
    blocks = random.integers(0, 256, (num_blocks, size), dtype=np.uint8)
    scale = np.float32(NOISE_SCALE / 16 if qtype == QTYPES["Q8_0"] else NOISE_SCALE)
    blocks[:, :2] = np.array([scale], np.float16).view(np.uint8)
    if qtype == QTYPES["Q4_1"]:
        blocks[:, 2:4] = np.array([-7.5 * scale], np.float16).view(np.uint8)
    return blocks.reshape(-1)


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
        check_shapes(small, shape)

    def is_real(self, layer):
        return layer < self.source.shape.layers

    def blank(self, num_rows, num_cols, qtype, noise):
        shape = (num_rows, row_bytes(num_cols, qtype))
        if not noise or self.padding == "zero":
            return np.zeros(shape, np.uint8)
        block = gguf.GGML_QUANT_SIZES[qtype][1]
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
        by_head[heads, :, :used] = 0
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
            out[:, :small.shape[1]] = 0
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


def check_shapes(small, to):
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
        if getattr(small, what) % 32 or getattr(to, what) % 32:
            raise ValueError(f"{what} must be a multiple of 32")


def replaced_keys(source, to, context):
    small = source.shape
    epsilon = source.value("llama.attention.layer_norm_rms_epsilon", 1e-5)
    u32, f32 = gguf.GGUFValueType.UINT32, gguf.GGUFValueType.FLOAT32
    keys = {
        "general.name": (f"{source.value('general.name', 'model')} inflated to {to.hidden} wide, "
                         f"{to.layers} layers", gguf.GGUFValueType.STRING, None),
        "llama.block_count": (to.layers, u32, None),
        "llama.embedding_length": (to.hidden, u32, None),
        "llama.feed_forward_length": (to.ffn, u32, None),
        "llama.attention.head_count": (to.heads, u32, None),
        "llama.attention.head_count_kv": (to.kv_heads, u32, None),
        "llama.attention.key_length": (to.head_dim, u32, None),
        "llama.attention.value_length": (to.head_dim, u32, None),
        "llama.rope.dimension_count": (to.head_dim, u32, None),
        "llama.vocab_size": (to.vocab, u32, None),
        "llama.attention.layer_norm_rms_epsilon": (
            float(np.float32(epsilon * small.hidden / to.hidden)), f32, None),
        "llama.context_length": (context or source.value("llama.context_length"), u32, None),
    }
    # What the model was inflated from, for whoever would grow it once more or label a report.
    keys["tandem.inflated_from"] = (f"hidden {small.hidden}, {small.layers} layers, "
                                    f"{small.heads}/{small.kv_heads} heads of {small.head_dim}, "
                                    f"ffn {small.ffn}, vocabulary {small.vocab}",
                                    gguf.GGUFValueType.STRING, None)
    more = to.vocab - small.vocab
    padding = {"tokenizer.ggml.tokens": [f"<|unused_{i}|>" for i in range(more)],
               "tokenizer.ggml.token_type": [UNUSED_TOKEN] * more,
               "tokenizer.ggml.scores": [0.0] * more}
    for key, values in padding.items():
        field = source.reader.get_field(key)
        if field is not None:
            keys[key] = (field.contents() + values, field.types[0], field.types[-1])
    if "tokenizer.ggml.tokens" in keys and "tokenizer.ggml.token_type" not in keys:
        types = [1] * small.vocab + [UNUSED_TOKEN] * more
        keys["tokenizer.ggml.token_type"] = (types, gguf.GGUFValueType.ARRAY,
                                             gguf.GGUFValueType.INT32)
    return keys


def write_metadata(writer, source, to, context):
    replaced = replaced_keys(source, to, context)
    dropped = {"general.architecture", "general.file_type", "general.size_label"}
    if source.kept_rows is None:
        dropped.add(KEPT_IDS)
    for field in source.reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in dropped or field.name in replaced:
            continue
        is_array = field.types[0] == gguf.GGUFValueType.ARRAY
        writer.add_key_value(field.name, field.contents(), field.types[0],
                             sub_type=field.types[-1] if is_array else None)
    for key, (value, value_type, sub_type) in replaced.items():
        writer.add_key_value(key, value, value_type, sub_type=sub_type)


def inflate(source, to, types, padding, context, out):
    """Writes the file and returns one line about it."""
    inflater = Inflater(source, to, types, padding)
    part = out + ".part"
    writer = gguf.GGUFWriter(part, "llama")
    write_metadata(writer, source, to, context)
    plan = list(inflater.tensors())
    num_elements = 0
    for name, dims, qtype, _ in plan:
        num_elements += math.prod(dims)
        shape = dims[:-1] + (row_bytes(dims[-1], qtype),)
        writer.add_tensor_info(name, shape, np.dtype(np.uint8), math.prod(shape), raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, dims, qtype, make in plan:
        data = make()
        if data.size != math.prod(dims[:-1]) * row_bytes(dims[-1], qtype):
            raise AssertionError(f"{name}: {data.size} bytes do not fit {dims} of {qtype.name}")
        writer.write_tensor_data(data)
    writer.close()
    os.replace(part, out)
    return (f"{out}: {to.layers} layers, {num_elements / 1e9:.2f} G parameters, "
            f"{os.path.getsize(out) / 2**30:.2f} GiB; layers {types['layers'].name}, embedding "
            f"{types['embedding'].name}, head {'tied' if to.tied else types['head'].name}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="the llama GGUF to inflate")
    parser.add_argument("--out", required=True, help="the GGUF to write")
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    for field in ("hidden", "layers", "heads", "kv_heads", "head_dim", "ffn", "vocab"):
        parser.add_argument("--" + field.replace("_", "-"), type=int,
                            help="instead of the shape's")
    parser.add_argument("--tied", action=argparse.BooleanOptionalAction,
                        help="head and embedding are one matrix")
    names = [name.lower() for name in QTYPES]
    parser.add_argument("--layers-type", choices=names, default="q4_0")
    parser.add_argument("--embedding-type", choices=names, default="q8_0")
    parser.add_argument("--head-type", choices=names, default="q8_0", help="where it is not tied")
    parser.add_argument("--keep-trimmed", action="store_true", help="of a trimmed draft")
    parser.add_argument("--padding", choices=("noise", "zero"), default="noise")
    parser.add_argument("--context", type=int, default=0,
                        help="positions to claim; 0: the model's own")
    return parser.parse_args()


def main():
    args = parse_arguments()
    overrides = {key: value for key, value in vars(args).items()
                 if key in Shape.__annotations__ and value is not None}
    to = dataclasses.replace(SHAPES[args.shape], **overrides)
    types = {"layers": QTYPES[args.layers_type.upper()],
             "embedding": QTYPES[args.embedding_type.upper()],
             "head": QTYPES[args.head_type.upper()]}
    if os.path.exists(args.out) and os.path.samefile(args.model, args.out):
        sys.exit(f"inflate_model: --out is the model itself: {args.out}")
    try:
        source = Source(args.model, args.keep_trimmed)
        print(inflate(source, to, types, args.padding, args.context, args.out))
    except (OSError, ValueError) as error:
        print(f"inflate_model: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
