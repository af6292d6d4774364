"""Drafts that tools/distill writes are what it reads again, so that training can go on from them."""

import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from distill.export import write_gguf  # noqa: E402
from distill.model_file import read_gguf  # noqa: E402

TARGET = ROOT / "models" / "smollm2-135m-instruct.tiny.q4_1.gguf"
WIDTH, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB = 64, 6, 2, 64, 96, 32


def draft_arrays():
    """Of one merged layer: its heads together are wider than the model."""
    random = np.random.default_rng(1)
    shapes = {"token_embd": (VOCAB, WIDTH), "blk.0.attn_q": (HEADS * HEAD_DIM, WIDTH),
              "blk.0.attn_k": (KV_HEADS * HEAD_DIM, WIDTH),
              "blk.0.attn_v": (KV_HEADS * HEAD_DIM, WIDTH),
              "blk.0.attn_output": (WIDTH, HEADS * HEAD_DIM), "blk.0.ffn_gate": (FFN, WIDTH),
              "blk.0.ffn_up": (FFN, WIDTH), "blk.0.ffn_down": (WIDTH, FFN),
              "output_norm": (WIDTH,), "blk.0.attn_norm": (WIDTH,), "blk.0.ffn_norm": (WIDTH,)}
    return {name + ".weight": random.standard_normal(shape, np.float32).astype(np.float32)
            for name, shape in shapes.items()}


def test_a_draft_of_merged_layers_is_read_as_it_was_written(tmp_path):
    arrays = draft_arrays()
    spec = {"name": "merged", "width": WIDTH, "heads": HEADS, "kv_heads": KV_HEADS, "ffn": FFN}
    path = tmp_path / "draft.gguf"
    write_gguf(str(TARGET), spec, list(range(VOCAB - 1)), arrays, str(path), "F16", "F16")

    shape, read = read_gguf(str(path))

    assert (shape.width, shape.heads, shape.kv_heads, shape.head_dim) == (
        WIDTH, HEADS, KV_HEADS, HEAD_DIM)
    assert (shape.layers, shape.ffn, shape.vocab) == (1, FFN, VOCAB)
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        assert read[name].shape == array.shape
        assert np.allclose(read[name], array, rtol=2e-3, atol=1e-3)
