#!/usr/bin/env python3
"""Streams an answer, and says what drafting was worth.

  stream.py [TARGET] [PROMPT]
"""

import sys

from tandem_client import Client, Message, Options, TandemError


def main():
    target = sys.argv[1] if len(sys.argv) > 1 else "localhost:50051"
    prompt = sys.argv[2] if len(sys.argv) > 2 else "Why is the sky blue?"
    with Client(target) as client:
        try:
            stream = client.generate([Message("user", prompt)], Options(max_tokens=128),
                                     overload_retries=3)
            for delta in stream:
                print(delta.text, end="", flush=True)
        except TandemError as error:
            sys.exit(f"\n{error} ({error.reason})")
    finished = stream.answer.finished
    print(f"\n{finished.usage.output_tokens} tokens, "
          f"{finished.speculation.acceptance_length:.2f} a step")


if __name__ == "__main__":
    main()
