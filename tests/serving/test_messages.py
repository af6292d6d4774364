"""How tokens travel: a message a step for one stream, shared messages where there are many."""

import concurrent.futures

import grpc
import pytest

from conftest import SLOW, Client

PROMPTS = ["Once upon a time", "The capital of France is", "Dear Sir or Madam,",
           "def main():", "1 2 3 4", "It was a dark and stormy night"]
NUM_TOKENS = 60


def request(client, prompt, max_tokens=NUM_TOKENS):
    request = client.request(prompt, max_tokens=max_tokens, mode="OFF")
    request.stopping.ignore_eos = True
    request.output.top_logprobs = 2
    return request


def deltas_of(client, *args, **kwargs):
    """The deltas of an answer, after what comes before and after them was checked."""
    events = list(client.stub.Generate(request(client, *args, **kwargs)))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["started", *["delta"] * (len(events) - 2), "finished"]
    assert events[-1].finished.usage.output_tokens == NUM_TOKENS
    return [event.delta for event in events[1:-1]]


def contents(deltas):
    """(text, token ids, ids of the log-probabilities) of an answer."""
    return ("".join(delta.text for delta in deltas),
            [token for delta in deltas for token in delta.token_ids],
            [logprob.token_id for delta in deltas for logprob in delta.logprobs])


def messages(server, event):
    return server.metric("tandem_stream_messages_total", event=event)


def test_a_stream_alone_gets_its_tokens_step_by_step(api, start_server):
    server = start_server(draft=None)
    deltas = deltas_of(Client(api, server.address), PROMPTS[0])
    # A step that ends while the one before is being written shares its message.
    assert sum(len(delta.token_ids) == 1 for delta in deltas) > NUM_TOKENS // 2
    assert [len(delta.logprobs) for delta in deltas] == [len(delta.token_ids) for delta in deltas]
    server.wait_metric(lambda server: messages(server, "delta") == len(deltas))
    assert messages(server, "started") == messages(server, "finished") == 1


@pytest.mark.parametrize("flags", [["--stream-messages", "0"], ["--stream-messages", "4"]])
def test_many_streams_get_all_their_tokens_in_order(api, start_server, flags):
    server = start_server("--max-running", "16", *flags, draft=None)
    client = Client(api, server.address)
    alone = [contents(deltas_of(client, prompt)) for prompt in PROMPTS]
    before = messages(server, "delta")
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda prompt: deltas_of(client, prompt), 2 * PROMPTS))
    assert [contents(deltas) for deltas in answers] == 2 * alone
    for text, ids, logprob_ids in alone:
        assert text and len(ids) == NUM_TOKENS and logprob_ids == ids
    for deltas in answers:
        assert len(deltas[0].token_ids) == 1  # the first token waits for no other
    count = sum(len(deltas) for deltas in answers)
    server.wait_metric(lambda server: messages(server, "delta") == before + count)
    if flags[1] == "4":
        assert count < len(answers) * NUM_TOKENS // 4
    else:
        assert count > len(answers) * NUM_TOKENS // 2


def test_tokens_do_not_wait_for_others_when_the_deadline_is_near(api, start_server):
    server = start_server("--stream-interval", "10", draft=None)
    client = Client(api, server.address)
    call = client.stub.Generate(request(client, PROMPTS[0], 4000), timeout=3 * SLOW)
    tokens = deltas = 0
    with pytest.raises(grpc.RpcError) as error:
        for event in call:
            tokens += len(event.delta.token_ids)
            deltas += event.HasField("delta")
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    # The first token, what came until the last second as one, and that second's.
    assert tokens > deltas > 2


def test_a_cancelled_stream_that_waits_for_its_turn_is_over_at_once(api, start_server):
    server = start_server("--stream-messages", "0.1", draft=None)
    client = Client(api, server.address)
    call = client.stub.Generate(request(client, PROMPTS[0], 4000))
    assert next(call).HasField("started") and next(call).HasField("delta")
    call.cancel()
    server.wait_metric(lambda server: server.metric("tandem_requests_running") == 0)
    server.wait_metric(lambda server: server.metric("tandem_stream_buffered_bytes") == 0)
    deltas_of(client, PROMPTS[1])
