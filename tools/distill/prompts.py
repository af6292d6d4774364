"""Beginnings of training chats: whole prompts from templates and texts, and seeds.

A seed is only how a user's turn begins; the teacher writes the rest of it. So prompts come
out far broader than any list here. Nothing is shared with the held-out prompts.
"""

import importlib
import inspect
import json
import random
import sys
import textwrap

import numpy as np

from . import prompt_words as words
from .chat_tokens import ChatTokens
from .generate import ASSISTANT, USER

LONGEST_SHORT = 110  # ids of a whole prompt with the system's turn
LONGEST_LONG = 640

MODULES = """argparse array ast asyncio base64 bisect calendar cmath collections configparser
contextlib copy csv dataclasses datetime decimal difflib dis email enum fileinput fnmatch
fractions ftplib functools getpass gettext glob graphlib gzip hashlib heapq hmac html http imaplib
inspect io ipaddress itertools json keyword linecache locale logging lzma mailbox math mimetypes
numbers operator optparse os pathlib pickle pkgutil platform plistlib pprint profile queue quopri
random re reprlib sched secrets selectors shelve shlex shutil signal smtplib socket sqlite3 ssl
statistics string stringprep struct subprocess symtable tabnanny tarfile tempfile textwrap
threading timeit token tokenize trace traceback tracemalloc types typing unittest urllib.parse
uuid warnings wave weakref xml.dom zipfile zoneinfo""".split()


def fill(template, chance):
    """Replaces {word} by one of words.LISTS["word"]; lists may hold templates themselves."""
    while "{" in template:
        before, rest = template.split("{", 1)
        name, after = rest.split("}", 1)
        template = before + chance.choice(words.LISTS[name]) + after
    return template


def rephrase(prompt, chance):
    """The manners of different people."""
    kind = chance.random()
    if kind < 0.12:
        prompt = prompt[0].lower() + prompt[1:].rstrip(".")
    elif kind < 0.2:
        prompt = chance.choice(words.GREETINGS) + " " + prompt
    elif kind < 0.3:
        prompt = prompt + " " + chance.choice(words.WISHES)
    elif kind < 0.34:
        prompt = prompt + "\n\n" + fill(chance.choice(words.BACKGROUNDS), chance)
    return prompt


def documentation():
    """Texts and functions of Python's standard library, which every Python brings along."""
    texts, functions = [], []
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        for _, member in inspect.getmembers(module):
            text = inspect.getdoc(member) if getattr(member, "__module__", "") == name else None
            texts += [text] if text and 200 < len(text) < 2400 else []
            if inspect.isfunction(member) and member.__module__ == name:
                try:
                    source = textwrap.dedent(inspect.getsource(member))
                except (OSError, TypeError):
                    continue
                functions += [source] if 120 < len(source) < 2000 else []
        text = inspect.getdoc(module)
        if text and len(text) > 200:
            texts += [part for part in text.split("\n\n") if 200 < len(part) < 2400] + [text[:2400]]
    return sorted(set(texts)), sorted(set(functions))


def whole_prompts(count, chance):
    seen = set()
    for _ in range(count * 3):
        prompt = rephrase(fill(chance.choice(words.TEMPLATES), chance), chance)
        if prompt not in seen:
            seen.add(prompt)
            yield prompt
        if len(seen) == count:
            return


def long_prompts(count, chance):
    texts, functions = documentation()
    for _ in range(count):
        if chance.random() < 0.45 and functions:
            yield fill(chance.choice(words.CODE_TASKS), chance) + "\n\n```python\n" + \
                chance.choice(functions) + "```"
        else:
            yield fill(chance.choice(words.TEXT_TASKS), chance) + "\n\n" + chance.choice(texts)


def seeds(count, chance):
    for _ in range(count):
        kind = chance.random()
        if kind < 0.2:
            yield ""
        elif kind < 0.6:
            yield fill(chance.choice(words.OPENINGS), chance)
        else:  # the first words of a template
            parts = fill(chance.choice(words.TEMPLATES), chance).split(" ")
            yield " ".join(parts[:chance.randint(1, 5)])


def save(path, groups, extra):
    arrays = dict(extra)
    for name, (rows, modes) in groups.items():
        arrays[name + "_ids"] = np.concatenate([np.asarray(r, np.int32) for r in rows])
        arrays[name + "_ends"] = np.cumsum([len(r) for r in rows])
        arrays[name + "_modes"] = np.asarray(modes, np.int8)
    np.savez_compressed(path, **arrays)


def make_prompts(target, held_out_path, count, out):
    """Writes short and long beginnings and the held-out prompts as ids, .npz."""
    chance, chat = random.Random(1), ChatTokens(target)
    with open(held_out_path) as file:
        held_out = json.load(file)
    known = {p for prompts in held_out.values() for p in prompts}
    groups = {"short": ([], []), "long": ([], [])}

    def add(group, rows, mode, longest):
        kept = [row for row in rows if len(row) <= longest]
        groups[group][0].extend(kept)
        groups[group][1].extend([mode] * len(kept))

    add("short", [chat.prompt(p) for p in whole_prompts(count // 3, chance) if p not in known],
        ASSISTANT, LONGEST_SHORT)
    add("short", [chat.beginning(s) for s in seeds(count - count // 3, chance)], USER,
        LONGEST_SHORT)
    add("long", [chat.prompt(p) for p in long_prompts(count // 10, chance)], ASSISTANT,
        LONGEST_LONG)
    groups["held_out"] = ([chat.prompt(p) for p in sum(held_out.values(), [])],
                          [ASSISTANT] * len(known))
    classes = [name for name, prompts in held_out.items() for _ in prompts]
    save(out, groups, {"end": chat.end, "bridge_user": np.asarray(chat.bridges[USER]),
                       "bridge_assistant": np.asarray(chat.bridges[ASSISTANT]), "held_out_classes": np.asarray(classes)})
    for name, (rows, _) in groups.items():
        print(f"{name}  {len(rows)} beginnings, {sum(map(len, rows)) / len(rows):.0f} ids each",
              file=sys.stderr)
