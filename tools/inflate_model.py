#!/usr/bin/env python3
"""Writes a llama model in a larger shape that computes the same function.

    tools/inflate_model.py smollm2-135m-instruct.q4_1.gguf --shape 8b --out 8b.q4_0.gguf
    tools/inflate_model.py smollm2-135m-instruct.first6.q4_1.gguf --shape 1b --out 1b.q4_0.gguf
    tools/inflate_model.py MODEL.gguf --shape 8b --format safetensors-nf4 --out 8b-nf4

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

With --format safetensors the output is a folder as Hugging Face publishes models, in shards:
config.json, the tokenizer's files, weights in BF16 (or --layers-type f16, f32: quantized ones
are unpacked) and norms in F32. safetensors-nf4 has the layers' matrices in bitsandbytes' NF4 with
double-quantized scales, embedding and head in BF16: the text is then that of the small model in
NF4, close to its own. Neither holds what GGUF has for trimmed heads or RoPE factors.

Needs the packages gguf and numpy; memory for one matrix.
"""

import argparse
import dataclasses
import math
import os
import sys

import gguf
import numpy as np

import nf4
import safetensors_folder
from weight_types import QTYPES, as_bytes, block_layout, noise_tile, quantize, row_bytes, zeros

UNUSED_TOKEN = 5
KEPT_IDS = "tandem.draft.kept_ids"
# Types of layers, embedding and head where no option names them.
DEFAULT_TYPES = {"gguf": ("Q4_0", "Q8_0", "Q8_0"), "safetensors": ("BF16", "BF16", "BF16"),
                 "safetensors-nf4": (nf4.QTYPE, "BF16", "BF16")}


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


def metadata_of(source, to, context):
    """{key: (value, GGUF's type, that of an array's elements or None)} of the larger model."""
    replaced = replaced_keys(source, to, context)
    dropped = {"general.architecture", "general.file_type", "general.size_label"}
    if source.kept_rows is None:
        dropped.add(KEPT_IDS)
    metadata = {}
    for field in source.reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in dropped or field.name in replaced:
            continue
        is_array = field.types[0] == gguf.GGUFValueType.ARRAY
        metadata[field.name] = (field.contents(), field.types[0],
                                field.types[-1] if is_array else None)
    return metadata | replaced


def write_gguf(plan, metadata, out):
    part = out + ".part"
    writer = gguf.GGUFWriter(part, "llama")
    for key, (value, value_type, sub_type) in metadata.items():
        writer.add_key_value(key, value, value_type, sub_type=sub_type)
    for name, dims, qtype, _ in plan:
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
    return os.path.getsize(out)


def inflate(source, to, types, args):
    """Writes the model and returns one line about it."""
    plan = list(Inflater(source, to, types, args.padding).tensors())
    metadata = metadata_of(source, to, args.context)
    if args.format == "gguf":
        size = write_gguf(plan, metadata, args.out)
    else:
        if source.kept_rows is not None:
            raise ValueError("a folder of safetensors has no word for a trimmed head: leave out "
                             "--keep-trimmed")
        values = {key: entry[0] for key, entry in metadata.items()}
        size = safetensors_folder.write_folder(plan, values, args.out, args.max_shard_bytes)
    num_elements = sum(math.prod(dims) for _, dims, _, _ in plan)
    layers, embedding, head = (getattr(kind, "name", kind) for kind in types.values())
    return (f"{args.out}: {to.layers} layers, {num_elements / 1e9:.2f} G parameters, "
            f"{size / 2**30:.2f} GiB; layers {layers}, embedding {embedding}, "
            f"head {'tied' if to.tied else head}")


def types_of(args):
    """The types of layers, embedding and head. ValueError for one that the format has not."""
    types = {}
    for part, default in zip(("layers", "embedding", "head"), DEFAULT_TYPES[args.format]):
        wanted = getattr(args, part + "_type")
        name = wanted.upper() if wanted else default
        types[part] = nf4.QTYPE if name == nf4.QTYPE else QTYPES[name]
        if wanted and args.format == "safetensors-nf4" and part == "layers":
            raise ValueError("--layers-type is NF4 with --format safetensors-nf4")
        if wanted and args.format != "gguf" and types[part] not in safetensors_folder.DTYPES:
            raise ValueError(f"safetensors have no type {name}: --{part}-type bf16, f16 or f32")
    return types


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="the llama GGUF to inflate")
    parser.add_argument("--out", required=True, help="the GGUF or the folder to write")
    parser.add_argument("--format", choices=DEFAULT_TYPES, default="gguf")
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    for field in ("hidden", "layers", "heads", "kv_heads", "head_dim", "ffn", "vocab"):
        parser.add_argument("--" + field.replace("_", "-"), type=int,
                            help="instead of the shape's")
    parser.add_argument("--tied", action=argparse.BooleanOptionalAction,
                        help="head and embedding are one matrix")
    names = [name.lower() for name in QTYPES]
    parser.add_argument("--layers-type", choices=names, help="q4_0 in a GGUF, else bf16 or NF4")
    parser.add_argument("--embedding-type", choices=names, help="q8_0 in a GGUF, else bf16")
    parser.add_argument("--head-type", choices=names, help="likewise, where it is not tied")
    parser.add_argument("--keep-trimmed", action="store_true", help="of a trimmed draft")
    parser.add_argument("--padding", choices=("noise", "zero"), default="noise")
    parser.add_argument("--context", type=int, default=0,
                        help="positions to claim; 0: the model's own")
    parser.add_argument("--max-shard-bytes", type=int, default=safetensors_folder.MAX_SHARD_BYTES,
                        help="of safetensors; a larger matrix has a shard of its own")
    return parser.parse_args()


def main():
    args = parse_arguments()
    overrides = {key: value for key, value in vars(args).items()
                 if key in Shape.__annotations__ and value is not None}
    to = dataclasses.replace(SHAPES[args.shape], **overrides)
    if os.path.exists(args.out) and os.path.samefile(args.model, args.out):
        sys.exit(f"inflate_model: --out is the model itself: {args.out}")
    try:
        types = types_of(args)
        source = Source(args.model, args.keep_trimmed)
        print(inflate(source, to, types, args))
    except (OSError, ValueError) as error:
        print(f"inflate_model: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
