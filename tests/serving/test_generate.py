"""Streaming, equality of output with and without drafts, concurrency, cancelling."""

import concurrent.futures
import time

import grpc
import pytest

CHATS = [
    "Explain why the sky is blue.",
    "Write a Python function that reverses a list.",
    "List five fruits and their colours.",
    "Repeat after me: the cat sat on the mat, the cat sat on the mat, the cat sat on the mat.",
    "Traduis en français : good morning, how are you?",
    "What is 17 + 25? 🤔",
]
PROMPTS = [
    "Once upon a time",
    "def fibonacci(n):\n    ",
    "The quick brown fox jumps over the lazy dog. " * 6,
]


def all_pages_free(server):
    return (server.metric("tandem_kv_pages", state="used") == 0
            and server.metric("tandem_requests_running") == 0)


def test_events_come_in_order_and_add_up(client):
    events = list(client.stub.Generate(client.request("Once upon a time", max_tokens=24)))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "started" and kinds[-1] == "finished"
    assert set(kinds[1:-1]) == {"delta"}
    finished = events[-1].finished
    ids = [token for event in events[1:-1] for token in event.delta.token_ids]
    assert len(ids) == finished.usage.output_tokens == 24
    assert finished.reason == client.pb.FINISH_REASON_MAX_TOKENS
    assert events[0].started.prompt_tokens == finished.usage.prompt_tokens > 0
    assert finished.timings.total.ToMicroseconds() > 0


@pytest.mark.parametrize("mode", ["AUTO", "DRAFT", "LOOKUP"])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.8, "seed": 7},
                                      {"temperature": 1.0, "top_p": 0.9, "top_k": 50, "seed": 11,
                                       "repetition_penalty": 1.1, "presence_penalty": 0.3}])
def test_output_does_not_depend_on_speculation(client, mode, sampling):
    drafted = 0
    for kwargs in [{"chat": [("user", chat)]} for chat in CHATS] + [
            {"prompt": prompt} for prompt in PROMPTS]:
        plain = client.generate(mode="OFF", max_tokens=40, **kwargs, **sampling)
        speculative = client.generate(mode=mode, max_tokens=40, **kwargs, **sampling)
        assert plain[1] == speculative[1], kwargs
        assert plain[0] == speculative[0]
        assert plain[2].speculation.draft_token_count == 0
        drafted += speculative[2].speculation.draft_token_count
    if mode != "AUTO":
        assert drafted > 0


def test_a_drafting_request_reports_its_acceptance(client):
    _, _, finished = client.generate("The cat sat on the mat. " * 8, mode="DRAFT", draft_length=4)
    report = finished.speculation
    assert report.draft_token_count > 0
    assert 0 <= report.accepted_token_count <= report.draft_token_count
    assert report.acceptance_rate == pytest.approx(
        report.accepted_token_count / report.draft_token_count)


def test_rejection_rule_streams_and_is_reproducible(client):
    first = client.generate(PROMPTS[0], mode="DRAFT", rule="REJECTION", temperature=1.0, seed=3)
    assert first[2].usage.output_tokens == 32
    assert first[2].speculation.draft_token_count > 0


def test_concurrent_clients_get_what_they_would_get_alone(client):
    requests = [client.request(chat=[("user", chat)], max_tokens=32, temperature=0.7, seed=seed)
                for seed, chat in enumerate(CHATS * 2)]
    alone = [client.run(request)[1] for request in requests]
    with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
        together = list(pool.map(lambda request: client.run(request)[1], requests))
    assert together == alone


def test_text_is_the_detokenized_ids(client):
    text, ids, _ = client.generate(chat=[("user", "Say hello in Japanese and add an emoji.")])
    assert client.stub.Detokenize(client.pb.DetokenizeRequest(token_ids=ids)).text == text


def test_stop_string_cuts_exactly(client):
    whole, _, _ = client.generate("1, 2, 3, 4,", max_tokens=30)
    stop = whole[10:13]
    for mode in ["OFF", "DRAFT", "LOOKUP"]:
        request = client.request("1, 2, 3, 4,", max_tokens=30, mode=mode)
        request.stopping.stop.append(stop)
        text, _, finished = client.run(request)
        assert text == whole[:whole.index(stop)]
        assert finished.reason == client.pb.FINISH_REASON_STOP_STRING
        assert finished.stop == stop


def test_logprobs_come_with_every_token(client):
    request = client.request("Once upon a time", max_tokens=8, mode="DRAFT")
    request.output.top_logprobs = 3
    logprobs = [entry for event in client.stub.Generate(request)
                for entry in event.delta.logprobs]
    assert len(logprobs) == 8
    for entry in logprobs:
        assert len(entry.top) == 3
        assert entry.logprob == pytest.approx(entry.top[0].logprob)  # greedy
        assert entry.logprob <= 0


def test_cancel_frees_the_pages(client, server):
    call = client.stub.Generate(client.request("Once upon a time", max_tokens=2000))
    for _ in range(4):
        next(call)
    assert server.metric("tandem_kv_pages", state="used") > 0
    call.cancel()
    server.wait_metric(all_pages_free)


def test_deadline_ends_the_request(client, server):
    with pytest.raises(grpc.RpcError) as error:
        client.run(client.request("Once upon a time", max_tokens=4000), timeout=0.5)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    server.wait_metric(all_pages_free)


def test_a_slow_reader_does_not_stop_the_others(client, server):
    slow = client.stub.Generate(client.request("Once upon a time", max_tokens=500))
    next(slow)
    started = time.monotonic()
    assert client.generate("Hello", max_tokens=16)[2].usage.output_tokens == 16
    assert time.monotonic() - started < 30
    slow.cancel()
    server.wait_metric(all_pages_free)


def test_chat_ends_by_itself(client):
    text, _, finished = client.generate(chat=[("user", "Answer with one word: is water wet?")],
                                        max_tokens=200)
    assert finished.reason == client.pb.FINISH_REASON_STOP_TOKEN
    assert "<|im_end|>" not in text


def test_special_tokens_of_users_are_text(client):
    pb = client.pb
    tokenized = client.stub.Tokenize(pb.TokenizeRequest(
        chat=pb.Chat(messages=[pb.ChatMessage(role="user", content="<|im_end|>")])))
    end = client.stub.Tokenize(
        pb.TokenizeRequest(text="<|im_end|>", parse_special_tokens=True)).token_ids
    assert len(end) == 1
    rendered = tokenized.rendered_prompt
    assert list(tokenized.token_ids).count(end[0]) == rendered.count("<|im_end|>") - 1
