"""Workers die in the middle of answers; clients notice nothing but time."""

import concurrent.futures
import os
import signal

import pytest

from conftest import Client, Server


@pytest.fixture
def fresh(api):
    server = Server().wait_ready()
    yield server, Client(api, server.address)
    assert server.stop() == 0, "\n".join(server.log)


def requests(client, count, **kwargs):
    return [client.request(f"Story number {index}: once upon a time", max_tokens=120,
                           temperature=0.9, seed=index, **kwargs) for index in range(count)]


def run_with_a_death(server, client, worker, **kwargs):
    """Ids of answers during which `worker` was killed, and of the same ones in peace."""
    peace = [client.run(request)[1] for request in requests(client, 3, **kwargs)]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        calls = [client.stub.Generate(request) for request in requests(client, 3, **kwargs)]
        for call in calls:
            next(call)
        server.kill_worker(worker)
        answers = list(pool.map(
            lambda call: [token for event in call for token in event.delta.token_ids], calls))
    return peace, answers


def drop_first(peace, answers):
    """`next(call)` took the started event only, so nothing of the answer is missing."""
    assert [len(answer) for answer in answers] == [len(answer) for answer in peace]


def test_killing_the_draft_fails_no_request(fresh):
    server, client = fresh
    peace, answers = run_with_a_death(server, client, "draft", mode="DRAFT")
    drop_first(peace, answers)
    assert answers == peace
    server.wait_log(r"ready  draft is back")
    # It is used again, not only alive.
    server.wait_metric(lambda server: server.metric("tandem_worker_up", role="draft") == 1)
    _, _, finished = client.generate("Once upon a time", mode="DRAFT", max_tokens=20)
    assert finished.speculation.draft_token_count > 0
    assert server.metric("tandem_worker_restarts_total", role="draft") >= 1


def test_killing_the_target_loses_no_token(fresh):
    server, client = fresh
    peace, answers = run_with_a_death(server, client, "target")
    assert answers == peace
    server.wait_log(r"ready  target is back")
    assert client.generate("Once upon a time", max_tokens=8)[2].usage.output_tokens == 8


def test_a_killed_gateway_comes_back(api, fresh):
    server, client = fresh
    call = client.stub.Generate(client.request("Once upon a time", max_tokens=2000))
    next(call)
    server.kill_worker("gateway")
    with pytest.raises(Exception):
        list(call)
    server.wait_log(r"ready  gateway is back")
    again = Client(api, server.address)  # of its new port
    assert again.generate("Once upon a time", mode="DRAFT", max_tokens=8)[2].usage.output_tokens == 8


def test_without_a_draft_it_serves_plainly(api):
    server = Server(draft=None).wait_ready()
    client = Client(api, server.address)
    _, _, finished = client.generate("Once upon a time", max_tokens=8, mode="AUTO")
    assert finished.usage.output_tokens == 8
    # "draft_down" tells of a worker that is away, and an alert's page sends people to look for it.
    reasons = client.generate("Once upon a time", max_tokens=8,
                              mode="DRAFT")[2].speculation.bypass_reasons
    assert reasons["no_draft_model"] > 0 and "draft_down" not in reasons
    assert server.metric("tandem_spec_bypass_total", reason="no_draft_model") > 0
    assert not client.stub.GetModel(client.pb.GetModelRequest()).HasField("draft")
    assert server.stop() == 0


def test_sigterm_lets_running_requests_finish(fresh):
    server, client = fresh
    call = client.stub.Generate(client.request("Once upon a time", max_tokens=60))
    next(call)
    os.kill(server.process.pid, signal.SIGTERM)
    events = list(call)
    assert events[-1].WhichOneof("event") == "finished"
    assert events[-1].finished.usage.output_tokens == 60
