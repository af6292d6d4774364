"""Matrices as bytes of GGUF's types and of NF4, and what fills the padding of a larger one."""

import gguf
import numpy as np

import nf4

QTYPES = {name: gguf.GGMLQuantizationType[name]
          for name in ("Q4_0", "Q4_1", "Q8_0", "F16", "BF16", "F32")}
NOISE_SCALE = 0.004  # of a block's codes; 16-bit and NF4 noise have the same spread


def as_bytes(array):
    return np.ascontiguousarray(array).view(np.uint8).reshape(array.shape[0], -1)


def quantize(values, qtype):
    return nf4.quantize(values) if qtype == nf4.QTYPE else gguf.quants.quantize(values, qtype)


def block_layout(qtype):
    """Elements of a block, and its bytes."""
    return ((nf4.BLOCK, nf4.BLOCK_BYTES) if qtype == nf4.QTYPE
            else gguf.GGML_QUANT_SIZES[qtype])


def row_bytes(num_elements, qtype):
    elements, size = block_layout(qtype)
    return num_elements // elements * size


def zeros(num_bytes, qtype):
    """Blocks whose values are exactly 0."""
    return (np.resize(nf4.ZERO_BLOCK, num_bytes) if qtype == nf4.QTYPE
            else np.zeros(num_bytes, np.uint8))


def noise_tile(qtype, num_bytes):
    """A stretch of blocks with random codes and one scale; repeated to fill matrices."""
    random = np.random.default_rng(1)
    elements, size = block_layout(qtype)
    num_blocks = num_bytes // size
    if qtype == nf4.QTYPE:
        return nf4.noise(random, num_blocks, 8 * NOISE_SCALE)
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
