#!/usr/bin/env python3
"""Writes what transformers computes in float32 from a GGUF file, for common/model's tests.

    pip install torch transformers accelerate gguf==0.19.0
    tools/make_logits_golden.py --model smollm2-135m-instruct.q4_1.gguf \
        --out common/model/testdata/smollm2_golden.gguf

The golden is itself a GGUF file, which the tests can read. For each of the texts prose, code
and chat, of their first 256 tokens (prose: from token 4000 on, in the middle of the book):

    TEXT.token_ids          [256]
    TEXT.logits             [256, 256] F16, of the ids in `sampled_ids`
    TEXT.log_probs          [256] F32, log probability of the token that follows (0 for the last)
    TEXT.top_ids            [256 * 16] the likeliest ids of each position, likeliest first
    TEXT.top_logits         [256, 16] F32

and for perplexity on the first 4096 tokens of alice.txt, in windows of 512 and of 2048 tokens
whose second half is scored as by llama.cpp's perplexity tool:

    alice.token_ids         [4096]
    alice.window_512, .window_2048          mean negative log-likelihood of each window
    alice.perplexity_512, .perplexity_2048
"""

import argparse
import math
import pathlib

import gguf
import numpy
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TESTDATA = pathlib.Path(__file__).resolve().parent.parent / "common" / "model" / "testdata"
NUM_POSITIONS = 256
NUM_SAMPLED_IDS = 256
NUM_TOP = 16
NUM_PERPLEXITY_TOKENS = 4096


def load(path):
    path = pathlib.Path(path).resolve()
    options = {"gguf_file": path.name, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **options)
    return model.eval(), AutoTokenizer.from_pretrained(path.parent, **options)


def encode(tokenizer, path):
    return tokenizer(path.read_text(), add_special_tokens=False)["input_ids"]


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0]


def write_text(writer, name, ids, logits, sampled_ids):
    log_probs = torch.log_softmax(logits, dim=-1)
    following = [float(log_probs[i, ids[i + 1]]) for i in range(len(ids) - 1)] + [0.0]
    top = logits.topk(NUM_TOP, dim=-1)
    writer.add_array(f"{name}.token_ids", ids)
    writer.add_array(f"{name}.top_ids", top.indices.flatten().tolist())
    writer.add_tensor(f"{name}.logits", logits[:, sampled_ids].numpy().astype(numpy.float16))
    writer.add_tensor(f"{name}.log_probs", numpy.array(following, dtype=numpy.float32))
    writer.add_tensor(f"{name}.top_logits", top.values.numpy().astype(numpy.float32))


def window_losses(model, ids, window):
    losses = []
    for start in range(0, len(ids) - window + 1, window):
        chunk = ids[start:start + window]
        log_probs = torch.log_softmax(logits_of(model, chunk)[window // 2:-1].double(), dim=-1)
        targets = torch.tensor(chunk[window // 2 + 1:])
        losses.append(float(-log_probs.gather(1, targets[:, None]).mean()))
        print(f"window of {window}: {len(losses)}, mean loss {losses[-1]:.5f}", flush=True)
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    model, tokenizer = load(options.model)
    writer = gguf.GGUFWriter(options.out, "golden")
    sampled_ids = sorted(numpy.random.RandomState(1).choice(
        model.config.vocab_size, NUM_SAMPLED_IDS, replace=False).tolist())
    writer.add_array("sampled_ids", sampled_ids)
    alice = encode(tokenizer, TESTDATA / "alice.txt")
    texts = {"prose": alice[4000:], "code": encode(tokenizer, TESTDATA / "code.txt"),
             "chat": encode(tokenizer, TESTDATA / "chat.txt")}
    for name, ids in texts.items():
        if len(ids) < NUM_POSITIONS:
            raise SystemExit(f"{name} has {len(ids)} tokens, needs {NUM_POSITIONS}")
        ids = ids[:NUM_POSITIONS]
        write_text(writer, name, ids, logits_of(model, ids), sampled_ids)
    alice = alice[:NUM_PERPLEXITY_TOKENS]
    writer.add_array("alice.token_ids", alice)
    for window in (512, 2048):
        losses = window_losses(model, alice, window)
        perplexity = math.exp(sum(losses) / len(losses))
        print(f"{len(alice)} tokens, windows of {window}: perplexity {perplexity:.4f}")
        writer.add_array(f"alice.window_{window}", losses)
        writer.add_float32(f"alice.perplexity_{window}", perplexity)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
