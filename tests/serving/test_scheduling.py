"""Many requests at once: the prefix cache, queues, overload."""

import grpc
import pytest

TEXT = "The lighthouse keeper wrote down every ship that passed, its flag and its hour. " * 12


def cached(finished):
    return finished.usage.cached_tokens


def test_a_second_turn_runs_only_what_is_new(client):
    chat = [("user", TEXT + "Who passed first?")]
    answer, _, first = client.generate(chat=chat, max_tokens=40)
    chat += [("assistant", answer), ("user", "And then?")]
    again = client.generate(chat=chat, max_tokens=24)
    known = first.usage.prompt_tokens + first.usage.output_tokens
    # Whole pages of 32 of what has run; the end of the first answer may be spelt anew.
    assert cached(again[2]) >= first.usage.prompt_tokens // 32 * 32
    assert cached(again[2]) <= known
    assert cached(again[2]) >= 0.7 * again[2].usage.prompt_tokens


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9, "seed": 5,
                                           "repetition_penalty": 1.2}])
def test_answers_are_the_same_with_and_without_the_cache(api, client, start_server, sampling):
    from conftest import Client

    plain = Client(api, start_server("--no-prefix-cache").address)
    for question in ("Who?", "When?", "Where was it?"):
        chat = [("system", TEXT), ("user", question)]
        for _ in range(2):
            with_cache = client.generate(chat=chat, max_tokens=32, **sampling)
        without = plain.generate(chat=chat, max_tokens=32, **sampling)
        assert with_cache[1] == without[1]
        assert cached(with_cache[2]) > 150 and cached(without[2]) == 0


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9, "seed": 5},
                                      {"temperature": 0.9, "seed": 5, "rule": "REJECTION"}])
def test_halves_of_a_batch_get_what_each_would_get_alone(api, client, start_server, sampling):
    from concurrent.futures import ThreadPoolExecutor

    from conftest import Client

    halves = Client(api, start_server("--pipelining", "on").address)
    prompts = [f"{TEXT[:80 * n]} Then number {n}" for n in range(1, 7)]
    with ThreadPoolExecutor(len(prompts)) as pool:
        answers = list(pool.map(lambda prompt: halves.generate(
            prompt, max_tokens=32, mode="DRAFT", draft_length=3, **sampling), prompts))
    assert sum(finished.speculation.accepted_token_count for _, _, finished in answers) > 0
    if "rule" in sampling:
        return  # another sample of the same distribution
    for prompt, (_, ids, _) in zip(prompts, answers):
        assert ids == client.generate(prompt, max_tokens=32, mode="OFF", **sampling)[1]


@pytest.mark.parametrize("cache", [[], ["--no-prefix-cache"]])
def test_answers_do_not_change_where_pages_wait_in_host_memory(api, client, start_server, cache):
    from concurrent.futures import ThreadPoolExecutor

    from conftest import Client

    server = start_server("--kv-tokens", "320", "--swap-space", "64MiB", *cache, draft=None)
    crowded = Client(api, server.address)
    prompts = [f"{n} ships. {TEXT[:400]}" for n in range(6)]
    with ThreadPoolExecutor(len(prompts)) as pool:
        answers = list(pool.map(lambda prompt: crowded.generate(prompt, max_tokens=96), prompts))
    assert server.metric("tandem_preemptions_total") > 0
    moved = server.metric("tandem_swapped_pages_total", direction="out")
    assert moved > 0
    back = server.metric("tandem_swapped_pages_total", direction="in")
    assert 0 < back <= moved if cache else back <= moved
    assert server.metric("tandem_swap_pages", state="used") == 0
    for prompt, (_, ids, _) in zip(prompts, answers):
        assert ids == client.generate(prompt, max_tokens=96, mode="OFF")[1]


def test_one_client_leaves_others_a_quarter_of_the_places(api, start_server):
    from conftest import Client

    server = start_server("--max-running", "2", "--max-waiting", "6", draft=None)
    client = Client(api, server.address)
    limits = client.stub.GetModel(client.pb.GetModelRequest()).limits
    assert limits.max_requests_per_client == 6
    request = client.request("Once upon a time", max_tokens=2000)
    request.stopping.ignore_eos = True
    calls = [client.stub.Generate(request) for _ in range(6)]
    server.wait_metric(lambda server: server.metric("tandem_requests_waiting") == 4)
    with pytest.raises(grpc.RpcError) as error:
        client.run(request)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "CLIENT_LIMIT" in str(error.value.trailing_metadata())
    calls.append(client.stub.Generate(request, metadata=[("x-api-key", "another")]))
    server.wait_metric(lambda server: server.metric("tandem_requests_waiting") == 5)
    for call in calls:
        call.cancel()


def test_the_published_context_is_what_the_pool_holds(api, start_server):
    """With a small pool it said 8192, and answers ended at 128 with `context_full`."""
    from conftest import Client

    client = Client(api, start_server("--kv-tokens", "100", draft=None).address)
    context = client.stub.GetModel(client.pb.GetModelRequest()).context_length_tokens
    assert context == 4 * 32 + 1  # the last token is never run, so it needs no page
    request = client.request(token_ids=[5] * 100, max_tokens=0)
    request.stopping.ignore_eos = True
    finished = client.run(request)[2]
    assert finished.usage.output_tokens == context - 100
    assert finished.reason == client.pb.FINISH_REASON_CONTEXT_FULL
    with pytest.raises(grpc.RpcError) as error:
        client.run(client.request(token_ids=[5] * context))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "PROMPT_TOO_LONG" in str(error.value.trailing_metadata())
    assert "--kv-tokens" in error.value.details()
