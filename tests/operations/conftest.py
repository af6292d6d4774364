"""Fixtures of tests/serving, and a real Prometheus beside a server under load."""

import concurrent.futures
import os
import pathlib
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "deploy" / "grafana"),
                str(ROOT / "clients" / "python"), str(pathlib.Path(__file__).parent)]

from serving.conftest import Client, Server, api, models, pem  # noqa: E402,F401
from prometheus_server import Prometheus  # noqa: E402

LOAD_S = 12
PROMPTS = ["The sea was calm and", "A list of colours: red, green, red, green,",
           "Once upon a time there was"]
QUESTIONS = ["Why is the sky blue?", "How does one bake bread?", "What is a river?"]
MODES = ["AUTO", "DRAFT", "LOOKUP", "OFF"]


def generate(client, number):
    """Chats and texts in turn, and each of them in every mode."""
    if number % 2 == 0:
        text = PROMPTS[number // 8 % 3] * 6
        return client.generate(text, max_tokens=24, mode=MODES[number // 2 % 4])
    question = [("user", QUESTIONS[number // 8 % 3])]
    return client.generate(chat=question, max_tokens=24, mode=MODES[number // 2 % 4])


def put_under_load(client, server, seconds):
    """Requests of every kind that a panel shows, the death of both workers among them."""
    pb = client.pb
    end = time.monotonic() + seconds
    doomed = ["draft", "target"]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        number = 0
        while doomed or time.monotonic() < end:  # on a slow machine a worker's turn comes late
            list(pool.map(lambda i: generate(client, i), range(number, number + 4)))
            number += 4
            client.stub.Tokenize(pb.TokenizeRequest(text="a few words"))
            if doomed and time.monotonic() > end - seconds * len(doomed) / 3:
                server.kill_worker(doomed.pop(0))


class Scenario:
    def __init__(self, server, prometheus, start, end):
        self.server, self.prometheus, self.start, self.end = server, prometheus, start, end


@pytest.fixture(scope="session")
def scenario(api, models, tmp_path_factory):  # noqa: F811
    """A server that was under load for a while, and Prometheus that saw it."""
    server = Server().wait_ready()
    prometheus = None
    try:
        address = server.metrics_url.split("//")[1].split("/")[0]
        prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), [address])
        prometheus.wait("up == 1")
        start = time.time()
        put_under_load(Client(api, server.address), server,
                       float(os.environ.get("TANDEM_LOAD_S", LOAD_S)))
        for role in ("draft", "target"):
            prometheus.wait(f'tandem_worker_up{{role="{role}"}} == 1 and on (role) '
                            "sum by (role) (tandem_worker_restarts_total) > 0")
        # A recording rule sees the last scrape one evaluation later.
        prometheus.wait("instance:tandem_speedup:ratio_rate5m")
        yield Scenario(server, prometheus, start, time.time())
    finally:
        if prometheus is not None:
            prometheus.stop()
        server.stop()
