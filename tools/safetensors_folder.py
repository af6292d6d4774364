"""A llama model as a folder of safetensors, as Hugging Face publishes them: config.json, the
tokenizer's files, and shards with their index. Matrices come one at a time, with GGUF's names.

Norms are kept as floats, which every reader takes: rounded to BF16 they would change the
function of a model whose norms were scaled.
"""

import json
import math
import os
import pathlib
import tempfile

import gguf

import nf4
import tokenizer_json

DTYPES = {gguf.GGMLQuantizationType[name]: name for name in ("F32", "F16", "BF16")}
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U8": 1}
MAX_SHARD_BYTES = 5_000_000_000

PARTS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
         "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj"}
WHOLE = {"token_embd.weight": "model.embed_tokens.weight",
         "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
ROTATED = {"attn_q": "llama.attention.head_count", "attn_k": "llama.attention.head_count_kv"}


def checkpoint_name(name):
    if name in WHOLE:
        return WHOLE[name]
    if not name.startswith("blk."):
        raise ValueError(f"a folder of safetensors has no place for {name}")
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{PARTS[part]}.weight"


def rope_scaling(metadata):
    kind = metadata.get("llama.rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind not in ("linear", "llama3"):
        raise ValueError(f"no config.json for RoPE scaling {kind!r}")
    keys = {"factor": "factor"}
    if kind == "llama3":
        keys |= {"low_freq_factor": "low_freq_factor", "high_freq_factor": "high_freq_factor",
                 "original_max_position_embeddings": "original_context_length"}
    return {"rope_type": kind} | {key: metadata["llama.rope.scaling." + name]
                                  for key, name in keys.items()}


def config_json(metadata, tied, is_nf4):
    keys = {"num_hidden_layers": "llama.block_count", "hidden_size": "llama.embedding_length",
            "intermediate_size": "llama.feed_forward_length",
            "num_attention_heads": "llama.attention.head_count",
            "num_key_value_heads": "llama.attention.head_count_kv",
            "head_dim": "llama.attention.key_length", "vocab_size": "llama.vocab_size",
            "max_position_embeddings": "llama.context_length",
            "rms_norm_eps": "llama.attention.layer_norm_rms_epsilon",
            "bos_token_id": "tokenizer.ggml.bos_token_id",
            "eos_token_id": "tokenizer.ggml.eos_token_id",
            "tandem_inflated_from": "tandem.inflated_from"}
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
              "attention_bias": False, "mlp_bias": False, "torch_dtype": "bfloat16",
              "tie_word_embeddings": tied, "rope_scaling": rope_scaling(metadata),
              "rope_theta": metadata.get("llama.rope.freq_base", 10000.0)}
    config |= {name: metadata[key] for name, key in keys.items() if key in metadata}
    if is_nf4:
        config["quantization_config"] = {
            "quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": "bfloat16",
            "bnb_4bit_quant_storage": "uint8"}
    return config


class Shard:
    """One file of tensors whose types and shapes are known before it is written."""

    def __init__(self, path, entries):
        # The largest elements first, as the safetensors library has them: all lie aligned.
        self.places = {}
        header, end = {"__metadata__": {"format": "pt"}}, 0
        for name, (dtype, shape) in sorted(entries.items(),
                                           key=lambda item: -ITEM_BYTES[item[1][0]]):
            begin, end = end, end + num_bytes(dtype, shape)
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
            self.places[name] = (begin, end - begin)
        text = json.dumps(header, separators=(",", ":")).encode()
        text = text.ljust(-(-len(text) // 8) * 8)
        self.start = 8 + len(text)
        self.file = open(path, "wb")
        self.file.write(len(text).to_bytes(8, "little") + text)

    def write(self, name, array):
        place, size = self.places.pop(name)
        if array.nbytes != size:
            raise AssertionError(f"{name}: {array.nbytes} bytes, {size} expected")
        self.file.seek(self.start + place)
        self.file.write(memoryview(array).cast("B"))

    def close(self):
        if self.places:
            raise AssertionError(f"not written: {', '.join(self.places)}")
        self.file.close()


def num_bytes(dtype, shape):
    return ITEM_BYTES[dtype] * math.prod(shape)


def entries_of(name, dims, qtype):
    """The tensors of a matrix or vector of the plan: {name: (type, shape)}."""
    name = checkpoint_name(name)
    if qtype != nf4.QTYPE:
        return {name: (DTYPES[qtype], dims)}
    return {name + suffix: entry for suffix, entry in nf4.part_shapes(*dims).items()}


def in_shards(plan, max_bytes):
    """The plan in lists of at most `max_bytes` each, or of one matrix that is larger."""
    shards, used = [[]], 0
    for item in plan:
        size = sum(num_bytes(*entry) for entry in entries_of(*item[:3]).values())
        if shards[-1] and used + size > max_bytes:
            shards.append([])
            used = 0
        shards[-1].append(item)
        used += size
    return shards


def unrotated(name, data, metadata):
    """The rows of Q and K in the checkpoint's order: the first of each pair, then the second."""
    part = name.split(".")[2] if name.startswith("blk.") else ""
    if part not in ROTATED:
        return data
    by_pair = data.reshape(metadata[ROTATED[part]], -1, 2, data.shape[1])
    return by_pair.swapaxes(1, 2).reshape(data.shape)


def write_shard(path, plan, metadata):
    entries = {}
    for item in plan:
        entries |= entries_of(*item[:3])
    shard = Shard(path, entries)
    for name, dims, qtype, make in plan:
        data = unrotated(name, make(), metadata)
        parts = {"": data} if qtype != nf4.QTYPE else nf4.checkpoint_parts(data, *dims)
        for suffix, part in parts.items():
            shard.write(checkpoint_name(name) + suffix, part)
    shard.close()
    return entries


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def write_files(folder, plan, metadata, max_shard_bytes):
    names = [name for name, _, _, _ in plan]
    is_nf4 = any(qtype == nf4.QTYPE for _, _, qtype, _ in plan)
    write_json(folder / "config.json",
               config_json(metadata, "output.weight" not in names, is_nf4))
    tokenizer = tokenizer_json.tokenizer_json(metadata)
    if tokenizer is not None:
        write_json(folder / "tokenizer.json", tokenizer)
        write_json(folder / "tokenizer_config.json", tokenizer_json.tokenizer_config(metadata))
    shards = in_shards(plan, max_shard_bytes)
    weight_map, total = {}, 0
    for i, part in enumerate(shards, 1):
        file = (f"model-{i:05}-of-{len(shards):05}.safetensors" if len(shards) > 1
                else "model.safetensors")
        entries = write_shard(folder / file, part, metadata)
        weight_map |= dict.fromkeys(entries, file)
        total += sum(num_bytes(*entry) for entry in entries.values())
    if len(shards) > 1:
        write_json(folder / "model.safetensors.index.json",
                   {"metadata": {"total_size": total}, "weight_map": weight_map})
    return total


def write_folder(plan, metadata, out, max_shard_bytes=MAX_SHARD_BYTES):
    """Writes the folder `out`, which must not be there or be empty, and returns its weights' bytes.

    plan      (GGUF's name, dims, type, function that makes the bytes [rows, bytes]), in order;
              types F32, F16, BF16, nf4.QTYPE, Q and K in GGUF's order of rows
    metadata  {GGUF's key: value}
    """
    out = pathlib.Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already: remove it or name another")
    # Beside it, under another name until it is whole.
    with tempfile.TemporaryDirectory(prefix=out.name + ".part.", dir=out.absolute().parent) as part:
        folder = pathlib.Path(part) / "model"
        folder.mkdir()
        total = write_files(folder, plan, metadata, max_shard_bytes)
        os.rename(folder, out)
    return total
