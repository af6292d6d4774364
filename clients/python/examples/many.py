#!/usr/bin/env python3
"""Several answers at once, asynchronously.

  many.py TARGET PROMPT...
"""

import asyncio
import sys

from tandem_client import AsyncClient, Options


async def main():
    async with AsyncClient(sys.argv[1]) as client:
        answers = await asyncio.gather(*(
            client.complete(prompt, Options(max_tokens=32), overload_retries=10)
            for prompt in sys.argv[2:]))
    for prompt, answer in zip(sys.argv[2:], answers):
        print(f"{prompt}|{answer.text!r} ({answer.finish_reason})")


if __name__ == "__main__":
    asyncio.run(main())
