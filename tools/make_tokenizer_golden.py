#!/usr/bin/env python3
"""Writes what the reference tokenizers make of awkward strings, for common/tokenizer's tests.

    pip install gguf==0.19.0 tokenizers==0.23.3 sentencepiece==0.2.3
    tools/make_tokenizer_golden.py --smollm2 smollm2.gguf --llama3 ggml-vocab-llama-bpe.gguf \
        --llama2 ggml-vocab-llama-spm.gguf --out common/tokenizer/testdata

The references are built from the vocabulary in the file, not downloaded: for byte-level BPE
Hugging Face `tokenizers` with the pre-tokenizer of the model's tokenizer.json, for Llama 2
`sentencepiece` itself.

A line of a golden file: `p` (special tokens parsed) or `t` (taken as text), a tab, the text, a
tab, ids with spaces between. The text is UTF-8; backslash, control characters and bytes that are
not UTF-8 are written \\xHH.
"""

import argparse
import pathlib
import re
import struct

import sentencepiece
from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

from tokenizer_strings import strings

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+")
NORMAL, UNKNOWN, CONTROL = 1, 2, 3


class Vocabulary:

    def __init__(self, path: str):
        fields = GGUFReader(path).fields
        self.tokens = fields["tokenizer.ggml.tokens"].contents()
        self.types = fields["tokenizer.ggml.token_type"].contents()
        self.merges = (fields["tokenizer.ggml.merges"].contents()
                       if "tokenizer.ggml.merges" in fields else [])
        self.scores = (fields["tokenizer.ggml.scores"].contents()
                       if "tokenizer.ggml.scores" in fields else [])
        self.specials = [t for t, k in zip(self.tokens, self.types) if k in (UNKNOWN, CONTROL)]


def pre_tokenizer(name: str):

    def split(pattern: str):
        return pre_tokenizers.Split(Regex(pattern), behavior="isolated")

    def byte_level(use_regex: bool):
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)

    return pre_tokenizers.Sequence({
        "smollm": [pre_tokenizers.Digits(individual_digits=True),
                   byte_level(True)],
        "gpt2": [byte_level(True)],
        "llama3": [split(LLAMA3), byte_level(False)],
        "default": [
            split(r"[\p{P}\$\+<=>\^~\|]+"),
            split(GPT2),
            split(r"\p{N}+"),
            split("[0-9][0-9][0-9]"),
            byte_level(False),
        ],
    }[name])


def byte_level_encoders(vocabulary: Vocabulary, name: str):
    """Functions from text to ids: with special tokens parsed, and with them as text."""
    merges = [tuple(merge.split(" ")) for merge in vocabulary.merges]
    vocab = {token: id for id, token in enumerate(vocabulary.tokens)}

    def build(with_specials: bool):
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges,
                                         ignore_merges=name == "llama3"))
        tokenizer.pre_tokenizer = pre_tokenizer(name)
        if with_specials:
            tokenizer.add_special_tokens(
                [AddedToken(text, special=True, normalized=False) for text in vocabulary.specials])
        return lambda text: tokenizer.encode(text, add_special_tokens=False).ids

    return build(True), build(False)


def field(number: int, wire_type: int, payload: bytes) -> bytes:
    key = (number << 3) | wire_type
    return varint(key) + (varint(len(payload)) if wire_type == 2 else b"") + payload


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def sentence_piece_model(vocabulary: Vocabulary) -> bytes:
    """sentencepiece_model.proto's ModelProto: pieces = 1, trainer_spec = 2, normalizer_spec = 3."""
    pieces = b"".join(
        field(
            1,
            2,
            field(1, 2, token.encode()) + field(2, 5, struct.pack("<f", score)) +
            field(3, 0, varint(kind)),
        ) for token, score, kind in zip(vocabulary.tokens, vocabulary.scores, vocabulary.types))
    trainer = (field(3, 0, varint(2)) + field(4, 0, varint(len(vocabulary.tokens))) +
               field(35, 0, varint(1)))
    normalizer = (field(1, 2, b"identity") + field(3, 0, varint(1)) + field(4, 0, varint(0)) +
                  field(5, 0, varint(1)))
    return pieces + field(2, 2, trainer) + field(3, 2, normalizer)


def sentence_piece_encoders(vocabulary: Vocabulary):
    processor = sentencepiece.SentencePieceProcessor(model_proto=sentence_piece_model(vocabulary))
    pattern = ("(" +
               "|".join(re.escape(s) for s in sorted(vocabulary.specials, key=len, reverse=True)) +
               ")")

    def parsed(text: str) -> list[int]:  # every part between special tokens is a text of its own
        ids: list[int] = []
        for part in re.split(pattern, text):
            ids += ([vocabulary.tokens.index(part)]
                    if part in vocabulary.specials else processor.encode(part))
        return ids

    return parsed, processor.encode


def escape(text: bytes) -> str:
    decoded = text.decode("utf-8", errors="surrogateescape")
    out = []
    for char in decoded:
        code = ord(char)
        if 0xDC80 <= code <= 0xDCFF:
            out.append(f"\\x{code - 0xDC00:02x}")
        elif code < 0x20 or code == 0x7F or char == "\\":
            out.append(f"\\x{code:02x}")
        else:
            out.append(char)
    return "".join(out)


def write(path: pathlib.Path, encoders, texts: list[bytes]) -> None:
    parsed, as_text = encoders
    lines = []
    for text in texts:
        decoded = text.decode("utf-8", errors="replace")
        ids = as_text(decoded)
        ids_parsed = parsed(decoded)
        lines.append(f"t\t{escape(text)}\t{' '.join(map(str, ids))}\n")
        if ids_parsed != ids:
            lines.append(f"p\t{escape(text)}\t{' '.join(map(str, ids_parsed))}\n")
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
    print(f"{path}: {len(lines)} lines, {path.stat().st_size} bytes")


def write_classes(path: pathlib.Path) -> None:
    """Ranges of letters, numbers, white space and punctuation, as regular expressions see them."""
    text = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    lines = []
    for name, pattern in (
        ("L", r"\p{L}"),
        ("N", r"\p{N}"),
        ("S", r"\s"),
        ("P", r"[\p{P}\$\+<=>\^~\|]"),
    ):
        split = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
        chars = sorted(ord(char) for piece, _ in split.pre_tokenize_str(text) for char in piece)
        ranges: list[list[int]] = []
        for c in chars:
            if ranges and ranges[-1][1] == c - 1:
                ranges[-1][1] = c
            else:
                ranges.append([c, c])
        lines.append(name + "".join(f" {a:x}-{b:x}" if a != b else f" {a:x}" for a, b in ranges) +
                     "\n")
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smollm2", required=True)
    parser.add_argument("--llama3", required=True)
    parser.add_argument("--llama2", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()

    smollm2 = Vocabulary(args.smollm2)
    write_classes(args.out / "char_classes.txt")
    write(
        args.out / "smollm2_golden.txt",
        byte_level_encoders(smollm2, "smollm"),
        strings(1, 3500, smollm2.specials),
    )
    for name in ("gpt2", "default"):
        write(
            args.out / f"smollm2_as_{name}_golden.txt",
            byte_level_encoders(smollm2, name),
            strings(2, 700, smollm2.specials),
        )
    llama3 = Vocabulary(args.llama3)
    write(
        args.out / "llama3_golden.txt",
        byte_level_encoders(llama3, "llama3"),
        strings(3, 2200, llama3.specials[:12]),
    )
    llama2 = Vocabulary(args.llama2)
    write(
        args.out / "llama2_golden.txt",
        sentence_piece_encoders(llama2),
        strings(4, 2000, llama2.specials),
    )


if __name__ == "__main__":
    main()
