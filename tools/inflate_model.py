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
from inflated_weights import KEPT_IDS, Inflater, Shape, Source
from weight_types import QTYPES, row_bytes

UNUSED_TOKEN = 5
# Types of layers, embedding and head where no option names them.
DEFAULT_TYPES = {"gguf": ("Q4_0", "Q8_0", "Q8_0"), "safetensors": ("BF16", "BF16", "BF16"),
                 "safetensors-nf4": (nf4.QTYPE, "BF16", "BF16")}

SHAPES = {
    "8b": Shape(4096, 32, 32, 8, 128, 14336, 128256, False),  # Llama-3-8B
    "1b": Shape(2048, 16, 32, 8, 64, 8192, 128256, True),  # Llama-3.2-1B
    "0.5b": Shape(1280, 16, 20, 5, 64, 5120, 128256, True),
    "0.3b": Shape(1024, 12, 16, 4, 64, 3584, 128256, True),
    "small": Shape(1024, 32, 16, 4, 128, 2048, 49408, False),
}


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
