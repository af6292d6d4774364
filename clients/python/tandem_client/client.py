"""The synchronous client."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
from tandem.gateway.v1 import gateway_pb2 as pb
from tandem.gateway.v1 import gateway_pb2_grpc

from tandem_client import channel, errors
from tandem_client.requests import (Answer, Chat, Delta, Options, Prompt, to_message,
                                    to_tokenize)


def _raise(error: grpc.RpcError) -> None:
    call: Any = error
    raise errors.from_parts(call.code(), call.details() or "",
                            call.trailing_metadata() or ()) from error


class Stream(Iterator[Delta]):
    """An answer that is coming. Iterating gives its deltas; `answer` is all of it so far."""

    def __init__(self, call: Any, first: pb.GenerateResponse | None) -> None:
        self.answer = Answer()
        self._call = call
        self._first = first

    def __next__(self) -> Delta:
        while True:
            try:
                event, self._first = self._first or next(self._call), None
            except grpc.RpcError as error:
                _raise(error)
            delta = self.answer.take(event)
            if delta is not None:
                return delta

    def cancel(self) -> None:
        """Ends it; its memory on the server is free within one step."""
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.cancel()


class Client:
    """One connection, or one to each address of "dns:///name:port". Thread-safe.

    Servers share their time fairly between clients, told apart by `api_key` or else by address.
    """

    def __init__(self, target: str, tls: channel.Tls | None = None,
                 api_key: str | None = None) -> None:
        options = channel.channel_options()
        self._metadata = [("x-api-key", api_key)] if api_key else []
        self._channel = (grpc.secure_channel(target, tls.credentials(), options) if tls
                         else grpc.insecure_channel(target, options))
        self._stub: Any = gateway_pb2_grpc.GatewayServiceStub(self._channel)  # type: ignore

    def generate(self, prompt: Prompt, options: Options = Options(), *,
                 timeout_s: float | None = None, overload_retries: int = 0,
                 traceparent: str | None = None) -> Stream:
        """Streams an answer; returns once the server has begun with it.

        A full queue is tried again `overload_retries` times, after the delay that the server
        asks for. Raises TandemError.
        """
        request = to_message(prompt, options)
        metadata = self._metadata + ([("traceparent", traceparent)] if traceparent else [])
        for attempt in range(overload_retries + 1):
            call = self._stub.Generate(request, timeout=timeout_s, metadata=metadata)
            try:
                return Stream(call, next(call))
            except grpc.RpcError as rpc_error:
                try:
                    _raise(rpc_error)
                except errors.TandemError as error:
                    if not error.is_overload or attempt == overload_retries:
                        raise
                    time.sleep(error.retry_delay_s or 0.0)
        raise AssertionError("not reached")

    def complete(self, prompt: Prompt, options: Options = Options(),
                 **arguments: Any) -> Answer:
        """The whole answer; arguments as `generate`."""
        stream = self.generate(prompt, options, **arguments)
        for _ in stream:
            pass
        return stream.answer

    def tokenize(self, text: str | Chat, *, parse_special_tokens: bool = False,
                 add_special_tokens: bool = False, omit_generation_prompt: bool = False,
                 model: str = "") -> list[int]:
        """Token ids of a text, or of a conversation, as `generate` sees them.

        `add_special_tokens`: before a text the beginning-of-sequence token, where the model
        wants one. The rest as in Options.
        """
        request = to_tokenize(text, parse_special_tokens=parse_special_tokens,
                              add_special_tokens=add_special_tokens,
                              omit_generation_prompt=omit_generation_prompt, model=model)
        return list(self._call(self._stub.Tokenize, request).token_ids)

    def render(self, messages: Chat, *, omit_generation_prompt: bool = False,
               model: str = "") -> str:
        """A conversation as the model's chat template writes it."""
        request = to_tokenize(messages, parse_special_tokens=False, add_special_tokens=False,
                              omit_generation_prompt=omit_generation_prompt, model=model)
        return str(self._call(self._stub.Tokenize, request).rendered_prompt)

    def detokenize(self, token_ids: Sequence[int], *, render_special_tokens: bool = False,
                   model: str = "") -> str:
        """The text of token ids; special ones are dropped unless `render_special_tokens`."""
        request = pb.DetokenizeRequest(token_ids=token_ids, model=model,
                                       render_special_tokens=render_special_tokens)
        return str(self._call(self._stub.Detokenize, request).text)

    def get_model(self, model: str = "") -> pb.GetModelResponse:
        response: pb.GetModelResponse = self._call(self._stub.GetModel,
                                                   pb.GetModelRequest(model=model))
        return response

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=30)
        except grpc.RpcError as error:
            _raise(error)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
