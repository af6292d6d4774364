"""A GGUF's byte-level BPE vocabulary as tokenizer.json and tokenizer_config.json."""

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5  # GGUF's types of tokens
LLAMA3_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
                  r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_level(use_regex):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
            "use_regex": use_regex}


def sequence(first, use_regex):
    return {"type": "Sequence", "pretokenizers": [first, byte_level(use_regex)]}


LLAMA3 = sequence({"type": "Split", "pattern": {"Regex": LLAMA3_PATTERN}, "behavior": "Isolated",
                   "invert": False}, use_regex=False)
PRE_TOKENIZERS = {
    "gpt-2": byte_level(use_regex=True),
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "smollm": sequence({"type": "Digits", "individual_digits": True}, use_regex=True),
}


def tokenizer_json(metadata):
    """tokenizer.json of the GGUF's `metadata`; None where that has no vocabulary.

    Unused ids are left out: a reader pads to the vocab_size of config.json. ValueError for what
    is no byte-level BPE, or for a pre-tokenizer that has no counterpart here.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind is None:
        return None
    pre = metadata.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or pre not in PRE_TOKENIZERS:
        raise ValueError(f"no tokenizer.json for a tokenizer of kind {kind!r}, {pre!r}: known is "
                         f"gpt2 with {', '.join(PRE_TOKENIZERS)}")
    tokens = metadata["tokenizer.ggml.tokens"]
    types = metadata.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    used = [(text, index, kind) for index, (text, kind) in enumerate(zip(tokens, types))
            if kind != UNUSED]
    vocab = {text: index for text, index, _ in used}
    if len(vocab) != len(used):
        raise ValueError("no tokenizer.json for a vocabulary that has a text twice")
    added = [{"id": index, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": kind != USER_DEFINED}
             for text, index, kind in used if kind in (UNKNOWN, CONTROL, USER_DEFINED)]
    merges = [merge.split(" ", 1) for merge in metadata.get("tokenizer.ggml.merges", [])]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": None, "pre_tokenizer": PRE_TOKENIZERS[pre], "post_processor": None,
            "decoder": byte_level(use_regex=True),
            "model": {"type": "BPE", "dropout": None, "unk_token": None,
                      "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False,
                      "ignore_merges": PRE_TOKENIZERS[pre] is LLAMA3, "vocab": vocab,
                      "merges": merges}}


def tokenizer_config(metadata):
    """tokenizer_config.json: the special tokens by their text, and the chat template."""
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        index = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if index is not None:
            config[f"{name}_token"] = tokens[index]
    for key, name in (("tokenizer.ggml.add_bos_token", "add_bos_token"),
                      ("tokenizer.chat_template", "chat_template")):
        if key in metadata:
            config[name] = metadata[key]
    return config
