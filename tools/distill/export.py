"""Students to files: flat parts for the way home, and GGUF for the workers."""

import json

import numpy as np

PART_BYTES = 15 << 20


def parts_of(state):
    """GGUF names, and the parts of a student's state that they are."""
    parts = {"token_embd.weight": state["embedding"], "output_norm.weight": state["final_norm"]}
    for i in range(len(state["wq"])):
        layer = {"attn_norm": state["norm1"][i], "ffn_norm": state["norm2"][i],
                 "attn_q": state["wq"][i], "attn_k": state["wkv"][i, 0],
                 "attn_v": state["wkv"][i, 1], "attn_output": state["wo"][i],
                 "ffn_gate": state["wgu"][i, 0], "ffn_up": state["wgu"][i, 1],
                 "ffn_down": state["wd"][i]}
        parts |= {f"blk.{i}.{name}.weight": value for name, value in layer.items()}
    return parts


def embedding_type(kind):
    """The type of the embedding beside matrices in `kind`."""
    return "Q8_0" if kind.startswith("Q4_") else kind


def arrays_of(state, half=np.float16):
    """GGUF names and arrays of a student's state."""
    return {name: value.detach().float().cpu().numpy().astype(np.float32 if value.dim() == 1
                                                              else half)
            for name, value in parts_of(state).items()}


def pack(state, spec, prefix, kind):
    """Writes <prefix>.json and <prefix>.0, .1, ...: files small enough to travel. Matrices in
    `kind`: F16, or one that GGUF files of that type keep as it is; the embedding in its
    embedding_type."""
    import gguf
    arrays = arrays_of(state, np.float16 if kind == "F16" else np.float32)
    blob, tensors = bytearray(), []
    for name, array in arrays.items():
        short = kind != "F16" and array.ndim == 2
        own = embedding_type(kind) if name == "token_embd.weight" else kind
        data = gguf.quants.quantize(array.astype(np.float32),
                                    gguf.GGMLQuantizationType[own]).tobytes() \
            if short else array.tobytes()
        tensors.append({"name": name, "shape": array.shape, "offset": len(blob),
                        "bytes": len(data), "dtype": own if short else str(array.dtype)})
        blob += data
    parts = range(0, len(blob), PART_BYTES)
    for index, begin in enumerate(parts):
        with open(f"{prefix}.{index}", "wb") as file:
            file.write(blob[begin:begin + PART_BYTES])
    with open(prefix + ".json", "w") as file:
        json.dump({"spec": spec, "tensors": tensors, "parts": len(parts),
                   "kept_ids": state["kept_ids"].tolist()}, file)


def unpack(prefix):
    """spec, kept_ids, and float32 arrays by GGUF name."""
    import gguf
    with open(prefix + ".json") as file:
        index = json.load(file)
    blob = b"".join(open(f"{prefix}.{i}", "rb").read() for i in range(index["parts"]))
    arrays = {}
    for entry in index["tensors"]:
        data = np.frombuffer(blob, np.uint8, entry["bytes"], entry["offset"])
        if entry["dtype"] in ("Q4_0", "Q4_1", "Q8_0"):
            values = gguf.quants.dequantize(data.reshape(entry["shape"][0], -1),
                                            gguf.GGMLQuantizationType[entry["dtype"]])
        else:
            values = data.view(entry["dtype"]).astype(np.float32)
        arrays[entry["name"]] = values.reshape(entry["shape"])
    return index["spec"], index["kept_ids"], arrays


def write_gguf(target, spec, kept_ids, arrays, out, matrix_type, embedding_type):
    """A draft for `target`: its tokenizer and metadata, the student's shape and weights."""
    import gguf
    types = gguf.GGMLQuantizationType
    reader = gguf.GGUFReader(target)
    num_layers = sum(name.endswith("attn_q.weight") for name in arrays)
    head_dim = len(arrays["blk.0.attn_q.weight"]) // spec["heads"]
    changed = {"llama.block_count": num_layers,
               "llama.embedding_length": spec["width"], "llama.feed_forward_length": spec["ffn"],
               "llama.attention.head_count": spec["heads"],
               "llama.attention.head_count_kv": spec["kv_heads"],
               "llama.attention.key_length": head_dim, "llama.attention.value_length": head_dim,
               "general.name": f"{spec['name']} draft"}
    dropped = {"general.basename", "general.size_label", "general.finetune", "general.file_type"}
    writer = gguf.GGUFWriter(out, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        if field.name in dropped:
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, changed.get(field.name, field.contents()), kind,
                             sub_type=sub)
    for key in ("llama.attention.key_length", "llama.attention.value_length"):
        if reader.get_field(key) is None:
            writer.add_uint32(key, head_dim)
    if len(kept_ids) + 1 == len(arrays["token_embd.weight"]):
        writer.add_key_value("tandem.draft.kept_ids", [int(i) for i in kept_ids],
                             gguf.GGUFValueType.ARRAY, sub_type=gguf.GGUFValueType.INT32)
    for name, array in arrays.items():
        if array.ndim == 1:
            writer.add_tensor(name, array.astype(np.float32))
            continue
        kind = types[embedding_type if name == "token_embd.weight" else matrix_type]
        writer.add_tensor(name, gguf.quants.quantize(array.astype(np.float32), kind),
                          raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
