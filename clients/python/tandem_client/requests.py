"""Requests and answers in plain Python; the contract is gateway.proto."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from tandem.gateway.v1 import gateway_pb2 as pb

Mode = Literal["auto", "off", "draft", "lookup"]
Rule = Literal["coupled", "rejection"]


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


# Turns in order, each a Message or {"role": ..., "content": ...}.
Chat = Sequence[Message | Mapping[str, str]]
# Text, a conversation or token ids.
Prompt = str | Chat | Sequence[int]


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
    stop: str | Sequence[str] = ()  # one, or several
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    include_stop: bool = False
    mode: Mode = "auto"
    draft_length: int = 0
    rule: Rule = "coupled"
    token_ids: bool = False
    logprobs: bool = False
    top_logprobs: int = 0  # implies logprobs
    speculation_trace: bool = False  # each draft, in `answer.finished.speculation.trace`
    priority: int = 0      # -10 to 10, the higher first
    model: str = ""
    request_id: str = ""
    # Special tokens such as <|im_start|> in a text are tokens. Of a prompt, not of messages.
    parse_special_tokens: bool = False
    # Leave out the header of the assistant's turn at the end of a conversation.
    omit_generation_prompt: bool = False


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
    """TypeError for what is no prompt."""
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
            stop=[options.stop] if isinstance(options.stop, str) else list(options.stop),
            stop_token_ids=list(options.stop_token_ids),
            ignore_eos=options.ignore_eos, include_stop=options.include_stop),
        speculation=pb.Speculation(mode=pb.Mode.Value(f"MODE_{options.mode.upper()}"),
                                   rule=pb.Rule.Value(f"RULE_{options.rule.upper()}"),
                                   draft_length=options.draft_length),
        output=pb.Output(token_ids=options.token_ids, logprobs=options.logprobs,
                         top_logprobs=options.top_logprobs,
                         speculation_trace=options.speculation_trace),
        priority=options.priority, parse_special_tokens=options.parse_special_tokens)
    if isinstance(prompt, str):
        request.prompt = prompt
        return request
    entries = _entries(prompt)
    if entries and isinstance(entries[0], (Message, Mapping)):
        request.chat.CopyFrom(_to_chat(entries, options.omit_generation_prompt))
    else:
        request.token_ids.CopyFrom(pb.TokenIds(ids=map(_token_id, entries)))
    return request


def to_tokenize(text: str | Chat, *, parse_special_tokens: bool, add_special_tokens: bool,
                omit_generation_prompt: bool, model: str) -> pb.TokenizeRequest:
    """TypeError for what is neither a text nor a conversation."""
    request = pb.TokenizeRequest(model=model, parse_special_tokens=parse_special_tokens,
                                 add_special_tokens=add_special_tokens)
    if isinstance(text, str):
        request.text = text
    else:
        request.chat.CopyFrom(_to_chat(_entries(text), omit_generation_prompt))
    return request


def _entries(prompt: object) -> list[Any]:
    alone = isinstance(prompt, (Message, Mapping))
    if alone or isinstance(prompt, (bytes, bytearray)) or not isinstance(prompt, Iterable):
        raise TypeError("a prompt is a text, a list of messages or a list of token ids, not "
                        f"{type(prompt).__name__}{': put it into a list' if alone else ''}")
    return list(prompt)


def _to_chat(entries: list[Any], omit_generation_prompt: bool) -> pb.Chat:
    chat = pb.Chat(omit_generation_prompt=omit_generation_prompt)
    for number, entry in enumerate(entries):
        if isinstance(entry, Message):
            entry = dataclasses.asdict(entry)
        if not isinstance(entry, Mapping):
            raise TypeError(f"message {number} is a {type(entry).__name__}, not a Message or "
                            'a {"role": ..., "content": ...}')
        if set(entry) != {"role", "content"}:
            raise TypeError(f"message {number} has {sorted(map(str, entry))}, "
                            "not just role and content")
        for name, value in entry.items():
            if not isinstance(value, str):
                raise TypeError(f"{name} of message {number} is a {type(value).__name__}, "
                                "not a text")
        chat.messages.add(**entry)
    return chat


def _token_id(entry: object) -> int:
    try:
        return operator.index(entry)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError("a prompt is a text, a list of messages or a list of token ids, not a "
                        f"list with a {type(entry).__name__}") from None
