#!/usr/bin/env python3
"""Checks the tree against the rules of CONTRIBUTING.md that a compiler does not know.

Prints one line for each offence and exits with 1 when there is any.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

MAX_FILE_LINES = 300
MAX_KERNEL_FILE_LINES = 500
MAX_MAIN_LINES = 60
MAX_FUNCTION_LINES = 70
MAX_COLUMNS = 100

# What each folder of common/ may include of the others; arrows point down only.
ARROWS = {
    "base": set(),
    "device": {"base"},
    "telemetry": {"base"},
    "tensor": {"base"},
    "gguf": {"base", "tensor"},
    "safetensors": {"base", "gguf", "tensor"},
    "tokenizer": {"base", "gguf", "safetensors"},
    "chat_template": {"base"},
    "kernels": set(),
    "kv": {"base"},
    "ipc": {"base", "device", "kv"},
    "speculation": {"base", "tensor", "kernels"},
    "model": {"base", "device", "tensor", "gguf", "kernels", "kv"},
    "rpc": {"base", "telemetry", "worker"},
    "worker": {"base", "device", "telemetry", "tensor", "gguf", "kernels", "kv", "ipc",
               "safetensors", "speculation", "model"},
}
GRPC_PLACES = re.compile(
    r"^(services/\w+/(service|main|links/|grpc_|.*_service|.*_test)|services/\w+/.*(service|link|"
    r"convert|transport|server|validation).*|cli/|clients/|common/rpc/|tests/|bench/)")
BANNED_FOLDERS = {"util", "utils", "helpers", "misc"}
BANNED_WORDS = [
    (re.compile(r"\bFIXME\b"), "FIXME: mend it, or TODO(#issue)"),
    (re.compile(r"\bTODO\b(?!\(#\d+\))"), "TODO without an issue: TODO(#issue)"),
    (re.compile(r"/work/|/root/"), "a path of one machine"),
]
CODE = {".h", ".cc", ".cu", ".cuh"}


def tracked_files():
    out = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [pathlib.Path(line) for line in out.stdout.splitlines() if (ROOT / line).is_file()]


def check_includes(path, text):
    parts = path.parts
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'#include ["<]([^">]+)[">]', line)
        if not match:
            continue
        include = match.group(1)
        if parts[0] == "services" and include.startswith("services/"):
            if include.split("/")[1] != parts[1]:
                yield number, f"services/{parts[1]} includes {include}: services meet in proto/"
        if parts[0] == "common" and include.startswith(("services/", "cli/")):
            yield number, f"common includes {include}: arrows point down"
        if parts[0] == "common" and include.startswith("common/"):
            here, there = parts[1], include.split("/")[1]
            is_test = re.search(r"(_test|_sim|reference_\w+)\.(cc|h)$", path.name)
            if there != here and there not in ARROWS.get(here, set()) and not is_test:
                yield number, f"common/{here} includes common/{there}"
        if parts[:2] == ("common", "kernels") and include.startswith(("absl/", "grpc", "google/")):
            if not path.name.endswith("_test.cc"):
                yield number, f"kernels include {include}"
        if include.startswith("grpcpp/") or include.endswith((".pb.h",)):
            if not GRPC_PLACES.match(str(path)):
                yield number, f"{include} outside service, main, links, cli and common/rpc"


def check_functions(lines):
    """Yields functions over the limit: from a line that starts one to its closing brace."""
    start, name = None, ""
    for number, line in enumerate(lines, 1):
        if start is None:
            if re.match(r"^[A-Za-z_].*[)\w] (const |noexcept |override )*\{$", line) and not re.match(
                    r"^(namespace|class|struct|enum|union|extern|template|inline namespace)\b", line):
                start, name = number, line.strip()
        elif line.startswith("}"):
            if number - start + 1 > MAX_FUNCTION_LINES:
                yield start, f"function of {number - start + 1} lines: {name[:60]}"
            start = None


def check_code(path, text):
    lines = text.splitlines()
    limit = MAX_FILE_LINES
    if path.parts[:2] == ("common", "kernels"):
        limit = MAX_KERNEL_FILE_LINES
    if path.name == "main.cc" and path.parts[0] == "services":
        limit = MAX_MAIN_LINES
    is_test = path.name.endswith("_test.cc")
    if len(lines) > limit and not is_test:
        yield 1, f"{len(lines)} lines, at most {limit}"
    # An -inl.h of Highway is included once for each instruction set.
    if path.suffix == ".h" and "#pragma once" not in text and not path.name.endswith("-inl.h"):
        yield 1, "no #pragma once"
    if path.suffix == ".h" and not text.startswith("//"):
        yield 1, "a header starts with what it is for"
    yield from check_includes(path, text)
    yield from check_functions(lines)


def check_file(path):
    if BANNED_FOLDERS & set(path.parts):
        yield 1, "a folder called util, helpers or misc"
    if path.suffix not in CODE | {".py", ".proto", ".txt", ".cmake", ".md", ".sh"}:
        return
    if "testdata" in path.parts or "models" in path.parts:
        return
    text = (ROOT / path).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        if path.suffix in CODE and len(line) > MAX_COLUMNS:
            yield number, f"{len(line)} columns, at most {MAX_COLUMNS}"
        if path.name not in ("tidy.py", "CONTRIBUTING.md"):  # they name what is banned
            for word, why in BANNED_WORDS:
                if word.search(line):
                    yield number, why
    if path.suffix in CODE:
        yield from check_code(path, text)


def main():
    offences = 0
    for path in tracked_files():
        for number, message in check_file(path):
            print(f"{path}:{number}: {message}")
            offences += 1
    print(f"tidy: {offences} offences")
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
