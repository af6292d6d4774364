"""bitsandbytes' 4-bit NormalFloat (NF4): matrices to blocks of 64 weights, and blocks to the
tensors that a pre-quantized checkpoint has for them.

A block is 36 bytes: its largest absolute value as float, then 32 bytes of two codes each, the
first in the upper half. A checkpoint keeps codes and maxima apart, and has the maxima in 8 bits
("double quantization"): less their mean, times a scale for each 256 of them, by a table of its
own. A maximum of 0 does not survive that; a block of zeros does, for code 7 is exactly 0.
Source: bitsandbytes, functional.py: create_dynamic_map, quantize_4bit, QuantState.as_dict.
"""

import json

import numpy as np

QTYPE = "NF4"  # where GGUF's types have a number
BLOCK = 64
BLOCK_BYTES = 36
VALUES = np.array([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
                   -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
                   0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
                   0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
                   0.7229568362236023, 1.0], np.float32)
ZERO_BLOCK = np.array([0] * 4 + [0x77] * 32, np.uint8)
NESTED_BLOCK = 256
STATE_BYTES = 256  # of the JSON text, spaces at its end: its length must not depend on numbers


def dynamic_map():
    """The 256 values of the maxima's codes: seven decades, each twice as fine as the one below."""
    values = [0.0, 1.0]
    for i in range(7):
        bounds = np.linspace(0.1, 1, 2**i + 1, dtype=np.float32)
        means = (bounds[:-1] + bounds[1:]) / 2 * 10.0 ** (i - 6)
        values += list(means) + list(-means)
    return np.sort(np.array(values, np.float32))


DYNAMIC_MAP = dynamic_map()


def nearest(values, table):
    """Indices into the sorted `table`."""
    return np.searchsorted((table[1:] + table[:-1]) / 2, values).astype(np.uint8)


def pack(maxima, codes):
    """Blocks [n * 36] of maxima [n] and codes [n, 64]."""
    blocks = np.empty((len(maxima), BLOCK_BYTES), np.uint8)
    blocks[:, :4] = maxima.astype(np.float32).reshape(-1, 1).view(np.uint8)
    blocks[:, 4:] = codes[:, ::2] << 4 | codes[:, 1::2]
    return blocks.reshape(-1)


def quantize(values):
    """Blocks [rows, bytes] of floats [rows, columns]; a row is a multiple of 64 long."""
    grouped = values.reshape(-1, BLOCK)
    maxima = np.abs(grouped).max(axis=1)
    codes = nearest(grouped / np.where(maxima > 0, maxima, 1)[:, None], VALUES)
    return pack(maxima, codes).reshape(len(values), -1)


def noise(random, num_blocks, maximum):
    codes = random.integers(0, 16, (num_blocks, BLOCK), dtype=np.uint8)
    return pack(np.full(num_blocks, maximum), codes)


def part_shapes(num_rows, num_cols):
    """What a checkpoint has for a matrix: {suffix of its name: (type, shape)}."""
    num_blocks = num_rows * num_cols // BLOCK
    return {"": ("U8", (num_rows * num_cols // 2, 1)), ".absmax": ("U8", (num_blocks,)),
            ".nested_absmax": ("F32", (-(-num_blocks // NESTED_BLOCK),)),
            ".nested_quant_map": ("F32", (256,)), ".quant_map": ("F32", (16,)),
            ".quant_state.bitsandbytes__nf4": ("U8", (STATE_BYTES,))}


def checkpoint_parts(blocks, num_rows, num_cols):
    """The arrays of part_shapes, from blocks in the order of the rows."""
    blocks = blocks.reshape(-1, BLOCK_BYTES)
    maxima = np.ascontiguousarray(blocks[:, :4]).view(np.float32).reshape(-1)
    offset = maxima.mean()
    padded = np.zeros(-(-len(maxima) // NESTED_BLOCK) * NESTED_BLOCK, np.float32)
    padded[:len(maxima)] = maxima - offset
    padded = padded.reshape(-1, NESTED_BLOCK)
    scales = np.abs(padded).max(axis=1)
    padded /= np.where(scales > 0, scales, 1)[:, None]
    state = {"quant_type": "nf4", "blocksize": BLOCK, "dtype": "bfloat16",
             "shape": [num_rows, num_cols], "nested_blocksize": NESTED_BLOCK,
             "nested_dtype": "float32", "nested_offset": float(offset)}
    text = json.dumps(state).encode().ljust(STATE_BYTES)
    return {"": np.ascontiguousarray(blocks[:, 4:]),
            ".absmax": nearest(padded, DYNAMIC_MAP).reshape(-1)[:len(maxima)],
            ".nested_absmax": scales, ".nested_quant_map": DYNAMIC_MAP, ".quant_map": VALUES,
            ".quant_state.bitsandbytes__nf4": np.frombuffer(text, np.uint8)}
