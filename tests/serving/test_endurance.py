"""What lasts: memory over many requests, clients that vanish, random deaths."""

import concurrent.futures
import pathlib
import random
import select
import socket
import threading

import grpc
import pytest

from conftest import SLOW, Client

ROLES = ("gateway", "target", "draft")
MIB = 1 << 20


def own_bytes(pid):
    """Memory of the process alone; pages of the pool are shared and full sooner or later."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


def num_descriptors(pid):
    return len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))


def idle(server):
    return (server.metric("tandem_requests_running") == 0
            and server.metric("tandem_requests_waiting") == 0
            and server.metric("tandem_kv_pages", state="used") == 0
            and server.metric("tandem_stream_buffered_bytes") == 0)


@pytest.mark.skipif(SLOW > 1, reason="a sanitizer keeps what was freed")
def test_memory_stays_where_it_is_over_many_requests(client, server):
    """Different prompts, sampled, in drafts and plain; some are cancelled."""
    def one(number):
        request = client.request(f"Number {number} of many, {number * 7919}:", max_tokens=6,
                                 mode="DRAFT" if number % 2 else "OFF", temperature=1.0,
                                 seed=number)
        if number % 10 == 0:
            call = client.stub.Generate(request)
            next(call)
            call.cancel()
        else:
            client.run(request)

    def many(numbers):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(one, numbers))
        server.wait_metric(idle)

    many(range(150))  # what is kept on purpose is there now
    pids = {role: server.worker_pid(role) for role in ROLES}
    before = {role: own_bytes(pid) for role, pid in pids.items()}
    many(range(150, 400))
    grown = {role: own_bytes(pid) - before[role] for role, pid in pids.items()}
    # A leak of 8 KiB a request is as much.
    assert max(grown.values()) < 2 * MIB, grown


class VanishingNetwork:
    """A proxy between one client and the server that, once told to, carries nothing in either
    direction and closes nothing: what a cut cable looks like to the server."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.server_side = socket.create_connection((host, int(port)))
        self.is_cut = False
        self.carrier = threading.Thread(target=self._carry, daemon=True)
        self.carrier.start()

    def _carry(self):
        self.client_side, _ = self.listener.accept()
        ends = {self.client_side: self.server_side, self.server_side: self.client_side}
        while not self.is_cut:
            for end in select.select(list(ends), [], [], 0.05)[0]:
                data = end.recv(65536)
                if not data or self.is_cut:
                    return
                ends[end].sendall(data)

    def cut(self):
        self.is_cut = True
        self.carrier.join()

    def close(self):
        self.cut()
        self.listener.close()
        self.client_side.close()
        self.server_side.close()


@pytest.fixture
def impatient(start_server):
    return start_server("--slow-client-timeout", "1")


def test_pages_of_clients_that_vanish_without_a_word_are_freed(api, impatient):
    """The half-open case: no FIN, no RST, no acknowledgement of HTTP/2. What an answer fills
    beyond the window of the stream ends it."""
    server = impatient
    networks = [VanishingNetwork(server.address) for _ in range(2)]
    channels, calls = [], []
    try:
        for network in networks:
            options = [("grpc.http2.lookahead_bytes", 16384), ("grpc.http2.bdp_probe", 0)]
            channels.append(grpc.insecure_channel(network.address, options=options))
            client = Client(api, server.address)
            request = client.request("Once upon a time", max_tokens=1900)
            request.stopping.ignore_eos = True
            request.output.top_logprobs = 20
            calls.append(api.grpc.GatewayServiceStub(channels[-1]).Generate(request))
            next(calls[-1])
        server.wait_metric(lambda server: server.metric("tandem_requests_running") == 2)
        for network in networks:
            network.cut()
        client = Client(api, server.address)
        assert client.generate("Hello", max_tokens=8)[2].usage.output_tokens == 8
        server.wait_metric(idle, timeout_s=60)
        assert client.generate("Hello", max_tokens=8)[2].usage.output_tokens == 8
    finally:
        for channel in channels:
            channel.close()
        for network in networks:
            network.close()


def test_a_soak_with_random_deaths_loses_and_changes_nothing(api, start_server):
    """Workers are killed at random while clients ask, cancel and come back; at the end every
    answer was right, and pages, descriptors and processes are what they were."""
    server = start_server()
    client = Client(api, server.address)
    dice = random.Random(20261123)
    requests = [client.request(f"Tale {number % 6}: once upon a time", max_tokens=24,
                               temperature=0.9, seed=number % 6,
                               mode=("AUTO", "DRAFT", "LOOKUP", "OFF")[number % 4])
                for number in range(40)]
    right = [client.run(request)[1] for request in requests[:6]]
    server.wait_metric(idle)
    descriptors = {role: num_descriptors(server.worker_pid(role)) for role in ROLES}

    def one(number):
        if number % 7 == 3:
            call = client.stub.Generate(requests[number])
            for _ in range(dice_of[number]):
                next(call)
            call.cancel()
            return
        answer = client.run(requests[number])[1]
        assert answer == right[number % 6], number

    dice_of = [dice.randint(1, 5) for _ in requests]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(one, number) for number in range(len(requests))]
        # Each death after so many answers; not again before the worker is back.
        deaths = ((6, "draft"), (14, "target"), (22, dice.choice(("draft", "target"))),
                  (30, "draft"))
        for count, (done, role) in enumerate(deaths, 1):
            concurrent.futures.wait(answers[:done], timeout=60 * SLOW)
            server.kill_worker(role)
            server.wait_metric(
                lambda server, count=count:
                server.metric("tandem_worker_restarts_total", reason="crash") == count,
                timeout_s=60)
        for answer in answers:
            answer.result(60 * SLOW)
    server.wait_metric(idle)
    for role in ("target", "draft"):
        server.wait_metric(lambda server, role=role: server.metric("tandem_worker_up", role=role) == 1)
    assert client.run(requests[1])[1] == right[1]
    for role in ROLES:
        assert num_descriptors(server.worker_pid(role)) <= descriptors[role] + 2, role
    assert server.metric("tandem_requests_total", code="INTERNAL") == 0
