"""Writes what gguf's Python reference makes of random blocks of every GGUF type we read.

    python3 tools/make_quant_golden.py common/kernels/cpu/testdata/quant_golden.bin

For each type: int32 type, int32 number of bytes, int32 number of elements, the bytes, the
elements as float32. Little-endian. Read by common/kernels/cpu/dequantize_golden_test.cc.
"""

import argparse
import pathlib
import struct

import gguf
import numpy as np

# Where a block has f16 scales: random bytes would make some of them infinite or NaN.
HALF_OFFSETS = {
    "F16": [0],
    "BF16": [],
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q8_0": [0],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
}
MIN_ELEMENTS = 512


def random_blocks(name: str, random: np.random.Generator) -> np.ndarray:
    """Blocks of the type, [number of blocks, bytes of a block]."""
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    blocks = random.integers(0, 256, (MIN_ELEMENTS // elements, size), dtype=np.uint8)
    for offset in HALF_OFFSETS[name]:
        halves = random.uniform(-1, 1, (len(blocks), 1)).astype(np.float16)
        blocks[:, offset : offset + 2] = halves.view(np.uint8)
    if name == "BF16":
        floats = random.normal(size=len(blocks)).astype(np.float32)
        blocks[:] = (floats.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8).reshape(-1, 2)
    return blocks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=pathlib.Path)
    output = parser.parse_args().output
    random = np.random.default_rng(1)
    with output.open("wb") as file:
        for name in HALF_OFFSETS:
            quant_type = gguf.GGMLQuantizationType[name]
            data = random_blocks(name, random).reshape(-1)
            floats = gguf.quants.dequantize(data, quant_type).astype("<f4").reshape(-1)
            file.write(struct.pack("<iii", quant_type, data.size, floats.size))
            file.write(data.tobytes())
            file.write(floats.tobytes())


if __name__ == "__main__":
    main()
