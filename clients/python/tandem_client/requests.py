"""Requests and answers in plain Python; the contract is gateway.proto."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from tandem.gateway.v1 import gateway_pb2 as pb

Mode = Literal["auto", "off", "draft", "lookup"]
Rule = Literal["coupled", "rejection"]


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


Prompt = str | Sequence[Message] | Sequence[int]


@dataclasses.dataclass(frozen=True)
class Options:
    """How to answer. What is None is left to the server."""

    max_tokens: int = 0  # 0: to the end of the context
    temperature: float = 0.0
    top_k: int = 0
    top_p: float | None = None
    min_p: float = 0.0
    repetition_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    logit_bias: Mapping[int, float] = dataclasses.field(default_factory=dict)
    min_tokens: int = 0
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    include_stop: bool = False
    mode: Mode = "auto"
    draft_length: int = 0
    rule: Rule = "coupled"
    token_ids: bool = False
    logprobs: bool = False
    top_logprobs: int = 0  # implies logprobs
    priority: int = 0      # -10 to 10, the higher first
    model: str = ""
    request_id: str = ""
    # Special tokens such as <|im_start|> in a text are tokens. Of a prompt, not of messages.
    parse_special_tokens: bool = False


@dataclasses.dataclass(frozen=True)
class Delta:
    """Text of one step, and its tokens where they were asked for."""

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    # For each token the likeliest ones, {token id: log-probability}.
    top_logprobs: tuple[dict[int, float], ...] = ()


@dataclasses.dataclass
class Answer:
    """What has come of an answer so far; `finished` once it is whole."""

    text: str = ""
    token_ids: list[int] = dataclasses.field(default_factory=list)
    started: pb.Started | None = None
    finished: pb.Finished | None = None

    @property
    def finish_reason(self) -> str:
        """"stop_token", "stop_string", "max_tokens" or "context_full"; empty before the end."""
        if self.finished is None:
            return ""
        return pb.FinishReason.Name(self.finished.reason).removeprefix("FINISH_REASON_").lower()

    def take(self, event: pb.GenerateResponse) -> Delta | None:
        """Remembers one event; the delta, if it is one."""
        kind = event.WhichOneof("event")
        if kind == "started":
            self.started = event.started
        elif kind == "finished":
            self.finished = event.finished
        elif kind == "delta":
            delta = Delta(event.delta.text, tuple(event.delta.token_ids),
                          tuple(entry.logprob for entry in event.delta.logprobs),
                          tuple({other.token_id: other.logprob for other in entry.top}
                                for entry in event.delta.logprobs))
            self.text += delta.text
            self.token_ids.extend(delta.token_ids)
            return delta
        return None


def to_message(prompt: Prompt, options: Options) -> pb.GenerateRequest:
    request = pb.GenerateRequest(
        model=options.model, request_id=options.request_id,
        sampling=pb.Sampling(
            temperature=options.temperature, top_k=options.top_k, top_p=options.top_p,
            min_p=options.min_p, repetition_penalty=options.repetition_penalty,
            presence_penalty=options.presence_penalty,
            frequency_penalty=options.frequency_penalty, seed=options.seed,
            logit_bias=dict(options.logit_bias)),
        stopping=pb.Stopping(
            max_tokens=options.max_tokens, min_tokens=options.min_tokens,
            stop=list(options.stop), stop_token_ids=list(options.stop_token_ids),
            ignore_eos=options.ignore_eos, include_stop=options.include_stop),
        speculation=pb.Speculation(mode=pb.Mode.Value(f"MODE_{options.mode.upper()}"),
                                   rule=pb.Rule.Value(f"RULE_{options.rule.upper()}"),
                                   draft_length=options.draft_length),
        output=pb.Output(token_ids=options.token_ids, logprobs=options.logprobs,
                         top_logprobs=options.top_logprobs),
        priority=options.priority, parse_special_tokens=options.parse_special_tokens)
    if isinstance(prompt, str):
        request.prompt = prompt
        return request
    request.token_ids.SetInParent()
    for entry in prompt:
        if isinstance(entry, Message):
            request.chat.messages.add(role=entry.role, content=entry.content)
        else:
            request.token_ids.ids.append(entry)
    return request
