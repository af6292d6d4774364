"""On-policy data: the teacher writes answers, and half of the questions too.

All rows start at position 0 and go in step, so that nothing is padded. Each row is a chat.
Its first tokens are given: the whole first prompt, or only how the user's turn begins. The
teacher then writes on: the rest of the user's turn, its answer, the user's next turn, until
the row is full.
"""

import dataclasses
import sys
import time

import torch

from . import blocks

USER, ASSISTANT = 0, 1


@dataclasses.dataclass
class ChatIds:
    """Token ids of the chat format. bridges[m]: what goes between <end> and turn m."""
    end: int
    bridges: tuple  # of user, of assistant
    longest_user_turn: int = 72


@dataclasses.dataclass
class Data:
    """tokens, argmax [rows, positions] int32; log_sum [rows, positions] float32, of the
    teacher's logits; states [rows, positions, width]; weight [rows, positions]: how much
    the prediction at a position counts. Entry t predicts token t + 1."""
    tokens: torch.Tensor
    argmax: torch.Tensor
    log_sum: torch.Tensor
    states: torch.Tensor
    weight: torch.Tensor


def choose(state, embedding, temperature):
    """Samples by the Gumbel trick. Next tokens, argmax, log of the sum of exp(logits)."""
    logits = (state @ embedding.T).float()
    noise = -torch.log(-torch.log(torch.rand_like(logits).clamp(1e-20, 1 - 1e-7)))
    return ((logits + temperature[:, None] * noise).argmax(-1), logits.argmax(-1),
            torch.logsumexp(logits, -1))


class Generator:
    def __init__(self, teacher, chat, rows, positions):
        self.teacher, self.chat, self.rows, self.positions = teacher, chat, rows, positions
        device, shape = teacher.device, teacher.shape
        self.cache = teacher.new_cache(rows, positions)
        self.cos, self.sin = blocks.rope_table(positions, shape.head_dim, shape.rope_base, device)
        self.choose = teacher.compiled.wrap(choose)
        self.bridge_lengths = torch.tensor([len(b) for b in chat.bridges], device=device)
        self.bridges = torch.zeros(2, int(self.bridge_lengths.max()), dtype=torch.long,
                                   device=device)
        for mode, bridge in enumerate(chat.bridges):
            self.bridges[mode, :len(bridge)] = torch.tensor(bridge)
        self.cached_prefix = None

    def shared_prefix(self, given):
        """How many first positions of the cache the last batch already filled."""
        same = (given == given[:1]).all(0) & (given[0] >= 0)
        length = int(same.long().cumprod(0).sum())
        prefix = given[0, :length].tolist()
        known = prefix == self.cached_prefix
        self.cached_prefix = prefix
        return max(0, length - 1) if known else 0

    @torch.no_grad()
    def run(self, given, mode, temperature, answers_only=False):
        """given [rows, positions or fewer]: ids, -1 from where the teacher writes; mode [rows]:
        whose turn it is there; temperature [rows]: of answers."""
        (rows, positions), device = given.shape, self.teacher.device
        bridge_length = self.bridges.shape[1]
        start = self.shared_prefix(given)
        data = Data(tokens=given.clamp(min=0).int(),
                    argmax=torch.zeros(rows, positions, dtype=torch.int32, device=device),
                    log_sum=torch.zeros(rows, positions, device=device),
                    states=torch.zeros(rows, positions, self.teacher.shape.width,
                                       dtype=self.teacher.dtype, device=device),
                    weight=torch.zeros(rows, positions, dtype=torch.float16, device=device))
        mode = mode.clone()
        bridge_at = torch.full((rows,), bridge_length, device=device)
        turn_length = torch.zeros(rows, dtype=torch.long, device=device)
        ended = torch.zeros(rows, dtype=torch.bool, device=device)
        user_temperature = torch.full((rows,), 0.9, device=device)
        tokens = given[:, start]
        for t in range(start, positions - 1):
            state = self.teacher.decode(tokens, t, self.cache, self.cos, self.sin)
            heat = torch.where(mode == ASSISTANT, temperature, user_temperature)
            sampled, argmax, log_sum = self.choose(state, self.teacher.embedding, heat)
            bridging = bridge_at < self.bridge_lengths[mode]
            is_given = given[:, t + 1] >= 0
            free = ~(bridging | is_given)
            too_long = free & (mode == USER) & (turn_length >= self.chat.longest_user_turn)
            sampled = torch.where(too_long, self.chat.end, sampled)
            bridge = self.bridges[mode, bridge_at.clamp(max=bridge_length - 1)]
            tokens = torch.where(is_given, given[:, t + 1], torch.where(bridging, bridge, sampled))
            data.tokens[:, t + 1] = tokens
            data.argmax[:, t] = argmax
            data.log_sum[:, t] = log_sum
            data.states[:, t] = state
            weight = torch.where(mode == ASSISTANT, 1.0, 0.0 if answers_only else 0.25)
            data.weight[:, t] = weight * (free & ~ended)
            closes = free & (tokens == self.chat.end)
            if answers_only:
                ended |= closes
            turn_length = torch.where(closes, 0, turn_length + free)
            mode = torch.where(closes, 1 - mode, mode)
            bridge_at = torch.where(closes, 0, (bridge_at + bridging).clamp(max=bridge_length))
        return data


def generate(generator, batches, seconds, max_tokens):
    """Runs batches (given, mode, temperature) until one of the limits; yields the data."""
    begin, num_tokens = time.time(), 0
    for index, (given, mode, temperature) in enumerate(batches):
        data = generator.run(given, mode, temperature)
        num_tokens += int((data.weight > 0).sum())
        spent = time.time() - begin
        print(f"generate  batch {index}  {num_tokens / 1e6:.2f} M tokens  {spent:.0f} s  "
              f"{num_tokens / spent / 1e3:.0f} k/s", file=sys.stderr, flush=True)
        yield data
        if num_tokens >= max_tokens or spent * (index + 2) / (index + 1) > seconds:
            return
