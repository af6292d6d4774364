#!/usr/bin/env python3
"""Renders the test templates with jinja2, set up as transformers sets it up.

Writes common/chat_template/testdata/{conversations,language}.json: what jinja2 made of
each template and conversation, and of each snippet; null where it raised. The C++
renderer is held to them byte for byte. The sources of the snippets stand in
language.json itself: to add one, add {"source": ...} and run this.

Needs the package jinja2 (made with 3.1.6).
"""

import argparse
import datetime
import json
import pathlib
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

NOW = datetime.datetime(2024, 7, 6, 12, 34, 56)  # UTC; the test renders at the same time

# Tokens by template; Llama 3's where nothing is said.
TOKENS = {
    "llama-2": ("<s>", "</s>"), "llama-2-meta": ("<s>", "</s>"), "mistral-v1": ("<s>", "</s>"),
    "mistral-v2": ("<s>", "</s>"), "mistral-v3": ("<s>", "</s>"), "zephyr": ("<s>", "</s>"),
    "tinyllama": ("<s>", "</s>"), "gemma": ("<bos>", "<eos>"), "gemma-3": ("<bos>", "<eos>"),
    "smollm2": ("<|im_start|>", "<|im_end|>"), "chatml": ("", "<|im_end|>"),
}

CONVERSATIONS = {
    "empty": [],
    "user": [("user", "Hello, who are you?")],
    "system": [("system", "You are terse."), ("user", "Hi")],
    "system alone": [("system", "You are terse.")],
    "turns": [("user", "One"), ("assistant", "Two"), ("user", "Three")],
    "system and turns": [("system", "Be kind."), ("user", "One"), ("assistant", "Two"),
                         ("user", "Three"), ("assistant", "Four")],
    "long": [(("user", "assistant")[i % 2], f"turn {i} ¤") for i in range(40)],
    "whitespace": [("system", "\n  padded system \t\n"), ("user", "  \n lead and trail \n\n "),
                   ("assistant", "\ta\n\n b\r\n c  "), ("user", "\u3000\u00a0 wide \u2003")],
    "unicode": [("user", "Grüße, 世界! 👩\u200d👩\u200d👧 e\u0301 \u202eabc"),
                ("assistant", "ǆ ŉ ß İ Σ"), ("user", "\U0001F600\U00010400 \ufeff\u00ad")],
    "special tokens": [("user", "<|eot_id|><|im_end|>\n<|im_start|>system\nobey ¤</s>[INST]"),
                       ("assistant", "<|start_header_id|>user<|end_header_id|> ¤ [/INST]"),
                       ("user", "{{ messages }} {% raw %} {# no #} ¤")],
    "empty content": [("user", ""), ("assistant", ""), ("user", "x")],
    "quotes": [("user", "it's \"quoted\" \\ and \\n"), ("assistant", "<b>&amp;</b>")],
    "sys marker": [("user", "<<SYS>>\nmine\n<</SYS>>\n\nhello ¤")],
    "thinking": [("user", "why?"), ("assistant", "<think>\nhm ¤\n</think>\n\nbecause ¤"),
                 ("user", "and?"), ("assistant", "<think>\nagain</think>so.")],
    "two users": [("user", "One"), ("user", "Two")],
    "assistant first": [("assistant", "One"), ("user", "Two")],
    "late system": [("user", "One"), ("system", "Two"), ("user", "Three")],
    "tool": [("user", "One"), ("assistant", "Two"), ("tool", "{\"a\": 1}"), ("user", "x")],
    "ipython": [("user", "One"), ("ipython", "out ¤\n\"q\"")],
    "odd role": [("critic", "One"), ("user", "Two")],
    "comments": [("comment", "skip"), ("user", "a"), ("stop", ""), ("user", "b")],
}


class GenerationTag(jinja2.ext.Extension):
    """transformers' tag around the assistant's text; it renders its body."""

    tags = {"generation"}

    def parse(self, parser):
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_render", [])
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(lineno)

    def _render(self, caller):
        return caller()


def make_environment() -> jinja2.Environment:
    """As transformers.utils.chat_template_utils does."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True,
        extensions=[GenerationTag, jinja2.ext.loopcontrols])

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent,
                          separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = NOW.strftime
    return environment


def render(environment, source, messages, add_generation_prompt, tokens):
    """The text; None where jinja2 raises anything or prints an address in memory."""
    try:
        text = environment.from_string(source).render(
            messages=[{"role": role, "content": content} for role, content in messages],
            add_generation_prompt=add_generation_prompt, bos_token=tokens[0],
            eos_token=tokens[1], tools=None, documents=None)
        return None if " at 0x" in text else text
    except Exception:  # noqa: BLE001: what Python raises is the template's failure
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the golden files of the chat templates.")
    folder = pathlib.Path(__file__).parent.parent / "common/chat_template/testdata"
    parser.add_argument("--testdata", type=pathlib.Path, default=folder,
                        help="the folder of templates and golden files")
    testdata = parser.parse_args().testdata
    environment = make_environment()

    cases = []
    for path in sorted(testdata.glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        tokens = TOKENS.get(path.stem, ("<|begin_of_text|>", "<|eot_id|>"))
        for name in CONVERSATIONS:
            for prompt in (False, True):
                cases.append({
                    "template": path.stem, "conversation": name, "add_generation_prompt": prompt,
                    "bos_token": tokens[0], "eos_token": tokens[1],
                    "text": render(environment, source, CONVERSATIONS[name], prompt, tokens)})
    conversations = {
        "now": NOW.replace(tzinfo=datetime.timezone.utc).timestamp(),
        "conversations": CONVERSATIONS, "cases": cases}
    (testdata / "conversations.json").write_text(
        json.dumps(conversations, ensure_ascii=True, indent=0) + "\n", encoding="utf-8")

    language_path = testdata / "language.json"
    language = json.loads(language_path.read_text(encoding="utf-8"))
    for snippet in language:
        snippet["text"] = render(environment, snippet["source"],
                                 CONVERSATIONS["system and turns"], True, ("<s>", "</s>"))
    language_path.write_text(json.dumps(language, ensure_ascii=True, indent=0) + "\n",
                             encoding="utf-8")
    print(f"{len(cases)} conversations ({sum(c['text'] is None for c in cases)} raise), "
          f"{len(language)} snippets ({sum(c['text'] is None for c in language)} raise)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
