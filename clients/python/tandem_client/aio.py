"""The asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from tandem.gateway.v1 import gateway_pb2 as pb
from tandem.gateway.v1 import gateway_pb2_grpc

from tandem_client import channel, errors
from tandem_client.requests import (Answer, Chat, Delta, Options, Prompt, to_message,
                                    to_tokenize)


def _translated(error: Any) -> errors.TandemError:
    return errors.from_parts(error.code(), error.details() or "",
                             list(error.trailing_metadata() or ()))


class AsyncStream(AsyncIterator[Delta]):
    """As Stream, for `async for`."""

    def __init__(self, call: Any, first: pb.GenerateResponse | None) -> None:
        self.answer = Answer()
        self._call = call
        self._first = first

    async def __anext__(self) -> Delta:
        while True:
            try:
                event, self._first = self._first or await self._call.read(), None
            except grpc.aio.AioRpcError as error:
                raise _translated(error) from error
            if event is grpc.aio.EOF:
                raise StopAsyncIteration
            delta = self.answer.take(event)
            if delta is not None:
                return delta

    def cancel(self) -> None:
        """Ends it; its memory on the server is free within one step."""
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        self.cancel()


class AsyncClient:
    """As Client, for one event loop."""

    def __init__(self, target: str, tls: channel.Tls | None = None,
                 api_key: str | None = None) -> None:
        options = channel.channel_options()
        self._metadata = [("x-api-key", api_key)] if api_key else []
        self._channel = (grpc.aio.secure_channel(target, tls.credentials(), options) if tls
                         else grpc.aio.insecure_channel(target, options))
        self._stub: Any = gateway_pb2_grpc.GatewayServiceStub(self._channel)  # type: ignore

    async def generate(self, prompt: Prompt, options: Options = Options(), *,
                       timeout_s: float | None = None, overload_retries: int = 0,
                       traceparent: str | None = None) -> AsyncStream:
        """As Client.generate."""
        request = to_message(prompt, options)
        metadata = self._metadata + ([("traceparent", traceparent)] if traceparent else [])
        for attempt in range(overload_retries + 1):
            call = self._stub.Generate(request, timeout=timeout_s, metadata=metadata)
            try:
                return AsyncStream(call, await call.read())
            except grpc.aio.AioRpcError as rpc_error:
                error = _translated(rpc_error)
                if not error.is_overload or attempt == overload_retries:
                    raise error from rpc_error
                await asyncio.sleep(error.retry_delay_s or 0.0)
        raise AssertionError("not reached")

    async def complete(self, prompt: Prompt, options: Options = Options(),
                       **arguments: Any) -> Answer:
        """The whole answer; arguments as `generate`."""
        stream = await self.generate(prompt, options, **arguments)
        async for _ in stream:
            pass
        return stream.answer

    async def tokenize(self, text: str | Chat, *, parse_special_tokens: bool = False,
                       add_special_tokens: bool = False, omit_generation_prompt: bool = False,
                       model: str = "") -> list[int]:
        """As Client.tokenize."""
        request = to_tokenize(text, parse_special_tokens=parse_special_tokens,
                              add_special_tokens=add_special_tokens,
                              omit_generation_prompt=omit_generation_prompt, model=model)
        return list((await self._call(self._stub.Tokenize, request)).token_ids)

    async def render(self, messages: Chat, *, omit_generation_prompt: bool = False,
                     model: str = "") -> str:
        """As Client.render."""
        request = to_tokenize(messages, parse_special_tokens=False, add_special_tokens=False,
                              omit_generation_prompt=omit_generation_prompt, model=model)
        return str((await self._call(self._stub.Tokenize, request)).rendered_prompt)

    async def detokenize(self, token_ids: Sequence[int], *, render_special_tokens: bool = False,
                         model: str = "") -> str:
        """As Client.detokenize."""
        request = pb.DetokenizeRequest(token_ids=token_ids, model=model,
                                       render_special_tokens=render_special_tokens)
        return str((await self._call(self._stub.Detokenize, request)).text)

    async def get_model(self, model: str = "") -> pb.GetModelResponse:
        response: pb.GetModelResponse = await self._call(self._stub.GetModel,
                                                         pb.GetModelRequest(model=model))
        return response

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=30)
        except grpc.aio.AioRpcError as error:
            raise _translated(error) from error

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self.close()
