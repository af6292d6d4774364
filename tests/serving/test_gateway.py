"""The gateway's own manners: starting, names, addresses, draining, rude clients."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from unittest.mock import ANY

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from conftest import BIN, DRAFT, TARGET, Client, Server

SERVICE = "tandem.gateway.v1.GatewayService"


class Gateway:
    """tandem-gateway alone, its events read."""

    def __init__(self, *arguments, listen="127.0.0.1:0", stderr=subprocess.DEVNULL):
        self.process = subprocess.Popen(
            [str(BIN / "tandem-gateway"), "--listen", listen, "--metrics-listen", "127.0.0.1:0",
             *arguments], stdout=subprocess.PIPE, stderr=stderr, text=True)

    def event(self):
        return json.loads(self.process.stdout.readline())

    def stop(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        return self.process.wait(20)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_while_starting_calls_are_unavailable_and_health_says_so(api, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    gateway = Gateway("--target", f"unix:{tmp_path}/nobody.sock", listen=address)
    try:
        client = Client(api, address)
        grpc.channel_ready_future(client.channel).result(20)
        for call in (lambda: client.generate("Hi"),
                     lambda: client.stub.GetModel(client.pb.GetModelRequest())):
            with pytest.raises(grpc.RpcError) as error:
                call()
            assert error.value.code() == grpc.StatusCode.UNAVAILABLE
            details = dict(error.value.trailing_metadata())["grpc-status-details-bin"]
            assert b"google.rpc.RetryInfo" in details and b"STARTING" in details
        health = health_pb2_grpc.HealthStub(client.channel)
        statuses = [health.Check(health_pb2.HealthCheckRequest(service=name)).status
                    for name in ("", SERVICE, "liveness")]
        no, yes = (health_pb2.HealthCheckResponse.NOT_SERVING,
                   health_pb2.HealthCheckResponse.SERVING)
        assert statuses == [no, no, yes]
    finally:
        assert gateway.stop() == 0


@pytest.mark.parametrize("arguments,code,word", [
    ([], 2, "--target"), (["--target", "unix:/x", "--max-running", "0"], 2, "--max-running"),
    (["--target", "unix:/x", "--no-such-flag"], 2, "--no-such-flag"),
    (["--target", "unix:/x", "--drain-timeout", "nan"], 2, "--drain-timeout"),
    (["--target", "unix:/x", "--listen", "unix:/no/such/folder/s.sock"], 5, "/no/such/folder"),
])
def test_a_wrong_command_line_is_an_event_and_an_exit_code(arguments, code, word):
    gateway = Gateway(*arguments) if "--listen" not in arguments else Gateway(
        *arguments[:-2], listen=arguments[-1])
    event = gateway.event()
    assert event["event"] == "error" and event["exit_code"] == code and word in event["message"]
    assert gateway.process.wait(20) == code


def test_a_request_id_runs_once_at_a_time(client):
    request = client.request("Once upon a time", max_tokens=2000)
    request.request_id = "mine"
    call = client.stub.Generate(request)
    assert next(call).started.request_id == "mine"
    with pytest.raises(grpc.RpcError) as error:
        client.run(request)
    assert error.value.code() == grpc.StatusCode.ALREADY_EXISTS
    call.cancel()
    request.stopping.max_tokens = 2
    deadline = time.monotonic() + 20
    while True:
        try:
            assert client.run(request)[2].usage.output_tokens == 2
            return
        except grpc.RpcError as again:
            assert again.code() == grpc.StatusCode.ALREADY_EXISTS
            assert time.monotonic() < deadline


def test_seed_is_reported_and_repeats_the_answer(client):
    request = client.request("Once upon a time", max_tokens=12, temperature=1.0)
    started = next(iter(client.stub.Generate(request))).started
    assert started.request_id
    request.sampling.seed = started.seed
    assert client.run(request)[1] == client.run(request)[1]


def test_an_expired_deadline_costs_nothing(client, server):
    for timeout in (0, 0.001):
        with pytest.raises(grpc.RpcError) as error:
            client.run(client.request("Once upon a time", max_tokens=500), timeout=timeout)
        assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    server.wait_metric(lambda server: server.metric("tandem_requests_running") == 0)


def test_a_deadline_and_a_cancel_are_counted_apart(api, start_server):
    server = start_server()
    client = Client(api, server.address)
    for name, end, timeout in (("DEADLINE_EXCEEDED", list, 1.5),
                               ("CANCELLED", lambda call: call.cancel(), 600)):
        call = client.stub.Generate(client.request("Once upon a time", max_tokens=2000),
                                    timeout=timeout)
        next(call)
        try:
            end(call)
        except grpc.RpcError as error:
            assert error.code() == getattr(grpc.StatusCode, name)
        server.wait_metric(lambda server: server.metric("tandem_requests_total", code=name) == 1)
    assert server.metric("tandem_requests_total", method="Generate") == 2


def test_a_full_server_refuses_while_those_before_still_run(api, start_server):
    """A refusal waits for nobody: not for a place, and not for a step."""
    server = start_server("--max-running", "2", "--max-waiting", "0", "--max-requests-per-client",
                          "0", draft=None)
    client = Client(api, server.address)
    request = client.request("Once upon a time", max_tokens=2000)
    request.stopping.ignore_eos = True
    running = [client.stub.Generate(request) for _ in range(2)]
    for call in running:
        next(call)
    for _ in range(40):
        with pytest.raises(grpc.RpcError) as error:
            client.generate("Hi", max_tokens=1)
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.metric("tandem_requests_running") == 2
    for call in running:
        call.cancel()


def test_of_a_flood_what_has_no_place_is_refused_and_the_rest_is_served(api):
    server = Server("--max-running", "2", "--max-waiting", "2", "--max-requests-per-client", "0",
                    draft=None).wait_ready()
    try:
        client = Client(api, server.address)
        request = client.request("Once upon a time", max_tokens=24)
        codes = []

        def run():
            try:
                codes.append(client.run(request)[2].usage.output_tokens)
            except grpc.RpcError as error:
                assert b"RetryInfo" in dict(error.trailing_metadata())["grpc-status-details-bin"]
                codes.append(error.code())

        threads = [threading.Thread(target=run) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(codes) == {24, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert codes.count(24) >= 4
        assert server.metric("tandem_requests_rejected_total", reason="queue_full") == \
            codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED)
    finally:
        assert server.stop() == 0


def test_no_more_run_at_once_than_the_target_has_places_for(api, tmp_path):
    socket_path = f"unix:{tmp_path}/target.sock"
    target = subprocess.Popen(
        [str(BIN / "tandem-target"), "--model", str(TARGET), "--listen", socket_path,
         "--max-sequences", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    gateway = Gateway("--target", socket_path, "--max-running", "300", stderr=subprocess.PIPE)
    try:
        assert "cut to 2, the target's --max-sequences" in gateway.process.stderr.readline()
        client = Client(api, gateway.event()["grpc"])
        limits = client.stub.GetModel(client.pb.GetModelRequest()).limits
        assert limits.max_running_requests == 2
        request = client.request("Once upon a time", max_tokens=8)
        calls = [client.stub.Generate(request) for _ in range(5)]
        assert all(list(call)[-1].WhichOneof("event") == "finished" for call in calls)
    finally:
        target.kill()
        target.wait()
        assert gateway.stop() == 0


def test_rubbish_on_the_port_harms_nobody(client, server):
    host, port = server.address.rsplit(":", 1)
    for rubbish in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", os.urandom(4096), b"",
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64,
                    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(rubbish)
    assert client.generate("Hi", max_tokens=2)[2].usage.output_tokens == 2


def test_metrics_answer_beside_a_stalled_scraper(server):
    host, port = server.metrics_url.split("/")[2].rsplit(":", 1)
    with socket.create_connection((host, int(port))) as stalled:
        stalled.sendall(b"GET /metrics HTTP/1.1\r\n")
        for _ in range(20):
            with urllib.request.urlopen(server.metrics_url, timeout=10) as response:
                assert b"tandem_ready 1" in response.read()


def test_a_client_that_does_not_read_holds_up_nobody(api, client, server):
    options = [("grpc.http2.lookahead_bytes", 16384), ("grpc.http2.bdp_probe", 0)]
    with grpc.insecure_channel(server.address, options=options) as channel:
        stub = api.grpc.GatewayServiceStub(channel)
        slow = client.request("Once upon a time", max_tokens=1500)
        slow.output.top_logprobs = 20
        call = stub.Generate(slow)
        next(call)
        for _ in range(3):
            assert client.generate("Hello", max_tokens=8)[2].usage.output_tokens == 8
        call.cancel()
    server.wait_metric(lambda server: server.metric("tandem_kv_pages", state="used") == 0)


def start_target(folder, model):
    return subprocess.Popen(
        [str(BIN / "tandem-target"), "--model", str(model), "--listen",
         f"unix:{folder}/target.sock", "--ctx", "1024"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def replace_target(target, folder, model):
    target.kill()
    target.wait(20)
    return start_target(folder, model)


@pytest.fixture
def gateway_flags():
    return []


@pytest.fixture
def unix_gateway(tmp_path, gateway_flags):
    """A target and a gateway on a unix socket, without a supervisor: (gateway, address)."""
    target = start_target(tmp_path, TARGET)
    address = f"unix:{tmp_path}/public.sock"
    gateway = Gateway("--target", f"unix:{tmp_path}/target.sock", *gateway_flags, listen=address)
    assert gateway.event() == {"event": "ready", "grpc": address, "metrics": ANY}
    yield gateway, address
    gateway.process.kill()
    target.terminate()
    target.wait(20)


@pytest.mark.parametrize("gateway_flags", [["--slow-client-timeout", "0.5"]])
def test_a_client_that_reads_too_late_is_told_why_it_was_ended(api, unix_gateway):
    options = [("grpc.http2.lookahead_bytes", 16384), ("grpc.http2.bdp_probe", 0)]
    with grpc.insecure_channel(unix_gateway[1], options=options) as channel:
        client = Client(api, unix_gateway[1])
        slow = client.request("Once upon a time", max_tokens=900)
        slow.output.top_logprobs = 20
        slow.stopping.ignore_eos = True
        slow.request_id = "slow"
        call = api.grpc.GatewayServiceStub(channel).Generate(slow)
        next(call)
        # Its id is free once the gateway has ended it.
        deadline = time.monotonic() + 60
        again = client.request("Hi", max_tokens=1)
        again.request_id = "slow"
        while True:
            try:
                client.run(again)
                break
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.ALREADY_EXISTS
                assert time.monotonic() < deadline
                time.sleep(0.05)
        with pytest.raises(grpc.RpcError) as error:
            list(call)
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "has not read" in error.value.details()


@pytest.mark.parametrize("gateway_flags", [["--stream-interval", "10"]])
def test_a_stream_interval_makes_fewer_messages_of_the_same_tokens(api, unix_gateway):
    client = Client(api, unix_gateway[1])

    def deltas(max_tokens):
        request = client.request("Once upon a time", max_tokens=max_tokens)
        request.stopping.ignore_eos = True
        events = list(client.stub.Generate(request))
        assert events[-1].WhichOneof("event") == "finished"
        return [event.delta for event in events if event.WhichOneof("event") == "delta"]

    first, rest = deltas(20)  # what is first is not kept back, nor is the end
    assert len(first.token_ids) + len(rest.token_ids) == 20
    # A full buffer does not wait for the interval: 256 tokens, and what a step adds.
    start = time.monotonic()
    many = deltas(600)
    intervals = int((time.monotonic() - start) / 10)
    assert sum(len(delta.token_ids) for delta in many) == 600
    assert len(many) <= 1 + 600 // 256 + 1 + intervals
    ids = [token for delta in many for token in delta.token_ids]
    assert ids[:20] == [*first.token_ids, *rest.token_ids]


def test_another_model_in_the_targets_place_is_refused_until_it_is_gone(api, tmp_path):
    address = f"unix:{tmp_path}/public.sock"
    target = start_target(tmp_path, TARGET)
    gateway = Gateway("--target", f"unix:{tmp_path}/target.sock", listen=address)
    try:
        assert gateway.event()["event"] == "ready"
        client = Client(api, address)
        expected = client.generate("Once upon a time", max_tokens=60)[1]
        running = client.stub.Generate(client.request("Once upon a time", max_tokens=900))
        next(running)
        target = replace_target(target, tmp_path, DRAFT)  # of the same vocabulary
        for call in (running, client.stub.Generate(client.request("Hi", max_tokens=1))):
            with pytest.raises(grpc.RpcError) as error:
                list(call)
            assert error.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert DRAFT.name in error.value.details()
        target = replace_target(target, tmp_path, TARGET)
        deadline = time.monotonic() + 60
        while True:
            try:
                assert client.generate("Once upon a time", max_tokens=60)[1] == expected
                break
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
                assert time.monotonic() < deadline
    finally:
        gateway.process.kill()
        target.kill()
        target.wait(20)


def test_draining_finishes_what_runs_and_takes_nothing_new(api, unix_gateway):
    gateway, address = unix_gateway
    client = Client(api, address)
    call = client.stub.Generate(client.request("Once upon a time", max_tokens=600))
    next(call)
    gateway.process.send_signal(signal.SIGTERM)
    refused = None
    deadline = time.monotonic() + 5
    while refused is None and time.monotonic() < deadline:
        try:
            client.generate("Hi", max_tokens=1)
        except grpc.RpcError as error:
            refused = error.code()
    assert refused == grpc.StatusCode.UNAVAILABLE
    # A probe must see it too, and not only that the process is alive.
    probe = [str(BIN / "tandem"), "health", "--endpoint", address]
    ready = subprocess.run(probe, capture_output=True, text=True, timeout=20, check=False)
    assert ready.returncode == 1 and "drains" in ready.stderr
    assert subprocess.run([*probe, "--live"], capture_output=True, timeout=20,
                          check=False).returncode == 0
    assert list(call)[-1].finished.usage.output_tokens == 600
    assert gateway.process.wait(20) == 0


def test_a_second_signal_ends_it_at_once(api, unix_gateway):
    gateway, address = unix_gateway
    client = Client(api, address)
    call = client.stub.Generate(client.request("Once upon a time", max_tokens=900))
    next(call)
    gateway.process.send_signal(signal.SIGTERM)
    time.sleep(0.1)  # two pending signals of a kind are one
    assert gateway.stop() == 0
    with pytest.raises(grpc.RpcError):
        list(call)


def test_a_socket_in_use_is_told(unix_gateway):
    second = Gateway("--target", "unix:/nobody", listen=unix_gateway[1])
    event = second.event()
    assert event["exit_code"] == 5 and unix_gateway[1][5:] in event["message"]
    assert second.process.wait(20) == 5
