"""Client of Tandem: streams answers, synchronous and asynchronous.

    with Client("localhost:50051") as client:
        for delta in client.generate("Once upon a time", Options(max_tokens=64)):
            print(delta.text, end="", flush=True)
"""

from tandem_client.aio import AsyncClient, AsyncStream
from tandem_client.channel import Tls
from tandem_client.client import Client, Stream
from tandem_client.errors import TandemError
from tandem_client.requests import Answer, Chat, Delta, Message, Options, Prompt

__all__ = ["Answer", "AsyncClient", "AsyncStream", "Chat", "Client", "Delta", "Message",
           "Options", "Prompt", "Stream", "TandemError", "Tls"]
