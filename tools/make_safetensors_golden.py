#!/usr/bin/env python3
"""Writes small random Llama checkpoints as Hugging Face folders, with the logits that
transformers computes from them, for common/safetensors' tests.

    pip install torch transformers
    tools/make_safetensors_golden.py --out common/safetensors/testdata

    plain/  F32, two shards, llama3 RoPE scaling, a head of its own
    nf4/    BF16 with the layers' matrices in bitsandbytes' NF4 layout (written here as its
            documentation describes it, nested absmax included), a tied head
    FOLDER/golden.json has "token_ids" and "logits" (one list for each position).
"""

import argparse
import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

NF4 = torch.tensor([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
                    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
                    0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
                    0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
                    0.7229568362236023, 1.0])
NESTED_BLOCK = 256


def config(**more):
    options = dict(vocab_size=96, hidden_size=128, intermediate_size=192, num_hidden_layers=2,
                   num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
                   rms_norm_eps=1e-5, hidden_act="silu", attention_bias=False, mlp_bias=False)
    return LlamaConfig(**(options | more))


def random_model(settings, seed):
    torch.manual_seed(seed)
    model = LlamaForCausalLM(settings).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.2 if "norm" in name else 1.2 / parameter.shape[-1] ** 0.5
            parameter.normal_(1.0 if "norm" in name else 0.0, spread)
        model.model.embed_tokens.weight.normal_(0.0, 1.0)
    return model


def quantize_nf4(weight):
    """Codes, block maxima and the values that they stand for."""
    blocks = weight.reshape(-1, 64)
    absmax = blocks.abs().max(dim=1).values
    offset = absmax.mean()
    centered = (absmax - offset).reshape(-1)
    padded = torch.zeros((len(centered) + NESTED_BLOCK - 1) // NESTED_BLOCK * NESTED_BLOCK)
    padded[:len(centered)] = centered
    nested = padded.reshape(-1, NESTED_BLOCK).abs().max(dim=1).values
    # Any table of 256 values will do for a reader: bitsandbytes' own is a dynamic one.
    table = torch.linspace(-1, 1, 255).tolist()
    table = torch.tensor(sorted(table + [0.5003]))
    scaled = padded.reshape(-1, NESTED_BLOCK) / nested[:, None]
    codes8 = (scaled[:, :, None] - table).abs().argmin(dim=2).reshape(-1)[:len(centered)]
    restored = table[codes8] * nested.repeat_interleave(NESTED_BLOCK)[:len(centered)] + offset
    codes = (blocks / absmax[:, None])[:, :, None].sub(NF4).abs().argmin(dim=2)
    values = (NF4[codes] * restored[:, None]).reshape(weight.shape)
    flat = codes.reshape(-1, 2).to(torch.uint8)
    packed = ((flat[:, 0] << 4) | flat[:, 1]).reshape(-1, 1)
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16",
             "shape": list(weight.shape), "nested_blocksize": NESTED_BLOCK,
             "nested_dtype": "float32", "nested_offset": float(offset)}
    parts = {"": packed, ".absmax": codes8.to(torch.uint8), ".nested_absmax": nested,
             ".nested_quant_map": table, ".quant_map": NF4.clone(),
             ".quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(state).encode()),
                                                            dtype=torch.uint8)}
    return values, parts


def write_golden(folder, model):
    ids = torch.randint(0, model.config.vocab_size, (1, 24), generator=torch.Generator()
                        .manual_seed(7))
    with torch.no_grad():
        logits = model(ids).logits[0]
    golden = {"token_ids": ids[0].tolist(),
              "logits": [[round(value, 5) for value in row] for row in logits.tolist()]}
    (folder / "golden.json").write_text(json.dumps(golden))


def write_plain(folder):
    folder.mkdir(parents=True, exist_ok=True)
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64, "rope_theta": 10000.0}
    model = random_model(config(rope_parameters=rope, tie_word_embeddings=False), 1)
    model.config.save_pretrained(folder)
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2],
              "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in halves.items()
                                            for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    write_golden(folder, model)


def write_nf4(folder):
    folder.mkdir(parents=True, exist_ok=True)
    model = random_model(config(tie_word_embeddings=True), 2)
    tensors = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("_proj.weight"):
                values, parts = quantize_nf4(parameter)
                parameter.copy_(values)
                tensors |= {name + suffix: part for suffix, part in parts.items()}
            else:
                parameter.copy_(parameter.to(torch.bfloat16).float())
                tensors[name] = parameter.to(torch.bfloat16)
    model.config.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors")
    write_golden(folder, model)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    out = parser.parse_args().out
    write_plain(out / "plain")
    write_nf4(out / "nf4")


if __name__ == "__main__":
    main()
