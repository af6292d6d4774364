#!/usr/bin/env python3
"""llama.cpp with 1 and 8 sequences in each step: tokens a second, one JSON object.

  llama_slots.py MODEL THREADS [TOKENS]

The steps that llama-server runs for its slots: llama_decode of one token of each sequence,
4-bit KV and flash attention as Tandem has by default, then greedy choice of the next tokens.
"""

import ctypes
import json
import sys
import time

import llama_cpp
import numpy


def run(model, threads, num_sequences, num_tokens):
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = 1024 * num_sequences
    params.n_batch = params.n_ubatch = 512
    params.n_seq_max = num_sequences
    params.n_threads = params.n_threads_batch = threads
    params.type_k = params.type_v = 2  # q4_0
    params.flash_attn_type = 1
    context = llama_cpp.llama_init_from_model(model, params)
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    batch = llama_cpp.llama_batch_init(512, 0, 1)

    def decode(entries):
        batch.n_tokens = len(entries)
        for i, (token, position, sequence, wants_logits) in enumerate(entries):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wants_logits
        if llama_cpp.llama_decode(context, batch) != 0:
            raise RuntimeError("llama_decode failed")

    def choose(row):
        logits = llama_cpp.llama_get_logits_ith(context, row)
        pointer = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float))
        return int(numpy.argmax(numpy.ctypeslib.as_array(pointer, shape=(vocab,))))

    prompt = numpy.random.RandomState(1).randint(100, 40000, 48).tolist()
    tokens = []
    for sequence in range(num_sequences):
        decode([(token, i, sequence, i + 1 == len(prompt)) for i, token in enumerate(prompt)])
        tokens.append(choose(len(prompt) - 1))
    start = time.perf_counter()
    for step in range(num_tokens):
        decode([(token, len(prompt) + step, sequence, True)
                for sequence, token in enumerate(tokens)])
        tokens = [choose(row) for row in range(num_sequences)]
    seconds = time.perf_counter() - start
    llama_cpp.llama_free(context)
    return num_sequences * num_tokens / seconds


def main():
    path, threads = sys.argv[1], int(sys.argv[2])
    num_tokens = int(sys.argv[3]) if len(sys.argv) > 3 else 64
    quiet = llama_cpp.llama_log_callback(lambda *_: None)  # must outlive its use
    llama_cpp.llama_log_set(quiet, None)
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(path.encode(),
                                                 llama_cpp.llama_model_default_params())
    print(json.dumps({str(n): run(model, threads, n, num_tokens) for n in (1, 8)}))


if __name__ == "__main__":
    main()
