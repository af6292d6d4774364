#!/usr/bin/env python3
"""Makes a draft from a llama GGUF by keeping its first layers.

The draft keeps the metadata, the tokenizer, the embeddings, the final norm and the
head; tensors are copied byte for byte, nothing is requantized. Such a draft needs no
training and shares the target's vocabulary, but it guesses far worse than a distilled
one: it is for tests and for first steps.

Needs the packages gguf and numpy.
"""

import argparse
import os
import re
import sys

import gguf

LAYER = re.compile(r"^blk\.(\d+)\.")


def kept_tensors(reader: gguf.GGUFReader, num_layers: int) -> list:
    """The tensors of the first `num_layers` layers and those of no layer, in file order."""
    kept = []
    for tensor in reader.tensors:
        layer = LAYER.match(tensor.name)
        if layer is None or int(layer.group(1)) < num_layers:
            kept.append(tensor)
    return kept


def copy_metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter, block_count_key: str,
                  num_layers: int) -> None:
    """Copies every key but those that the writer makes itself; sets the layer count."""
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == gguf.Keys.General.ARCHITECTURE:
            continue
        value_type = field.types[0]
        element_type = field.types[-1] if value_type == gguf.GGUFValueType.ARRAY else None
        value = field.contents()
        if field.name == block_count_key:
            value = num_layers
        elif field.name == gguf.Keys.General.NAME:
            value = f"{value} first {num_layers} layers"
        writer.add_key_value(field.name, value, value_type, sub_type=element_type)


def prune(model: str, num_layers: int, out: str) -> str:
    """Writes the draft and returns one line about it; ValueError for an unfit model."""
    reader = gguf.GGUFReader(model)
    architecture_field = reader.get_field(gguf.Keys.General.ARCHITECTURE)
    if architecture_field is None:
        raise ValueError(f"{model} has no {gguf.Keys.General.ARCHITECTURE}")
    architecture = architecture_field.contents()
    if architecture != "llama":
        raise ValueError(f"{model} is of architecture {architecture!r}, need 'llama'")
    block_count_key = f"{architecture}.block_count"
    block_count_field = reader.get_field(block_count_key)
    if block_count_field is None:
        raise ValueError(f"{model} has no {block_count_key}")
    block_count = int(block_count_field.contents())
    if not 1 <= num_layers <= block_count:
        raise ValueError(f"--layers is {num_layers}, {model} has 1 to {block_count}")

    tensors = kept_tensors(reader, num_layers)
    part = out + ".part"
    writer = gguf.GGUFWriter(part, architecture, endianess=reader.endianess)
    copy_metadata(reader, writer, block_count_key, num_layers)
    for tensor in tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(part, out)
    return (f"{out}: {num_layers} of {block_count} layers, {len(tensors)} tensors, "
            f"{os.path.getsize(out) / 2**20:.1f} MiB")


def main() -> int:
    parser = argparse.ArgumentParser(description="Make a draft GGUF from a model's first layers.")
    parser.add_argument("model", help="a GGUF of architecture llama")
    parser.add_argument("--layers", type=int, required=True, help="how many layers to keep")
    parser.add_argument("--out", required=True, help="the GGUF to write")
    args = parser.parse_args()
    if os.path.exists(args.out) and os.path.samefile(args.model, args.out):
        parser.error(f"--out is the model itself: {args.out}")
    try:
        print(prune(args.model, args.layers, args.out))
    except (OSError, ValueError) as error:
        print(f"prune_draft: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
