#!/usr/bin/env python3
"""Writes the Python of proto/tandem/gateway/v1 into a folder, with types.

  clients/python/generate_messages.py FOLDER
"""

import pathlib
import sys

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


def generate(out):
    """`out` then holds the package tandem.gateway.v1."""
    from grpc_tools import protoc

    out.mkdir(parents=True, exist_ok=True)
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{PROTO}", f"-I{include}", f"--python_out={out}",
                 f"--pyi_out={out}", f"--grpc_python_out={out}",
                 str(PROTO / "tandem" / "gateway" / "v1" / "gateway.proto")]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed on gateway.proto")


if __name__ == "__main__":
    generate(pathlib.Path(sys.argv[1]))
