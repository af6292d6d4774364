"""Chats as ids of the target's tokenizer, in its chat format."""

import json


def byte_level_tokenizer(tokens, merges):
    """Of a GGUF with a byte-level BPE vocabulary (pre-tokenizer smollm)."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    return tokenizer


class ChatTokens:
    """Splits what the chat template writes around turns from the turns themselves."""

    def __init__(self, gguf_path):
        import gguf
        import jinja2
        reader = gguf.GGUFReader(gguf_path)

        def value(key):
            return reader.get_field("tokenizer." + key).contents()

        tokens = value("ggml.tokens")
        self.tokenizer = byte_level_tokenizer(tokens, value("ggml.merges"))
        self.end = value("ggml.eos_token_id")
        control = [t for t, kind in zip(tokens, value("ggml.token_type")) if kind == 3]
        self.control = {t: tokens.index(t) for t in control}
        template = jinja2.Environment().from_string(value("chat_template"))
        mark = "\u2402"
        whole = template.render(messages=[{"role": "user", "content": mark}],
                                add_generation_prompt=True)
        self.head, self.tail = whole.split(mark)
        again = template.render(messages=[{"role": "user", "content": mark},
                                          {"role": "assistant", "content": mark},
                                          {"role": "user", "content": mark}],
                                add_generation_prompt=True)
        between = again.split(mark)[2]  # of the assistant's end and the next user's turn
        end = tokens[self.end]
        self.bridges = [self.ids(text[len(end):]) for text in (between, self.tail)]
        if not (between.startswith(end) and self.tail.startswith(end)):
            raise ValueError(f"the chat format is not known here: {json.dumps(whole)}")

    def ids(self, text):
        """Control tokens in `text` are themselves."""
        for token, number in self.control.items():
            if token and token in text:
                before, after = text.split(token, 1)
                return self.ids(before) + [number] + self.ids(after)
        return self.tokenizer.encode(text, add_special_tokens=False).ids if text else []

    def prompt(self, user):
        """A whole user's turn, up to where the assistant begins."""
        return self.ids(self.head) + self.tokenizer.encode(user).ids + self.ids(self.tail)

    def beginning(self, user):
        """How a user's turn begins."""
        return self.ids(self.head) + (self.tokenizer.encode(user).ids if user else [])
