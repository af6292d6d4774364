"""A machine that is short of something: disk, memory, a reader of the log, a steady time of day."""

import os
import re
import struct
import subprocess
import time

import pytest

from conftest import BIN, DRAFT, SLOW, TARGET, Client, Server
from test_gateway import free_port

class Unheard:
    """`tandem serve` whose log nobody can read, or write."""

    def __init__(self, stderr, **kwargs):
        self.address = f"127.0.0.1:{free_port()}"
        self.process = subprocess.Popen(
            [str(BIN / "tandem"), "serve", "--target", str(TARGET), "--draft", str(DRAFT),
             "--listen", self.address, "--metrics-listen", "127.0.0.1:0", "--log-level", "debug"],
            stdout=subprocess.DEVNULL, stderr=stderr, **kwargs)

    def wait_ready(self):
        health = [str(BIN / "tandem"), "health", "--endpoint", self.address]
        deadline = time.monotonic() + 60 * SLOW
        while subprocess.run(health, capture_output=True, check=False).returncode != 0:
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)

    def stop(self):
        self.process.terminate()
        try:
            return self.process.wait(30 * SLOW)
        finally:
            self.process.kill()


def answers(api, address, count=3):
    client = Client(api, address)
    for _ in range(count):
        assert client.generate("Once", max_tokens=8)[2].usage.output_tokens == 8


def test_a_full_disk_under_the_log_stops_nobody(api):
    with open("/dev/full", "wb") as full:
        server = Unheard(full)
    try:
        server.wait_ready()
        answers(api, server.address)
    finally:
        assert server.stop() == 0


def test_a_log_that_nobody_reads_any_more_stops_nobody(api):
    reader, writer = os.pipe()
    server = Unheard(writer, cwd="/proc/self")  # and a folder that nobody can write
    os.close(writer)
    try:
        server.wait_ready()
        os.close(reader)
        answers(api, server.address)
    finally:
        assert server.stop() == 0


@pytest.mark.skipif(SLOW > 1, reason="a sanitizer's shadow takes more than any limit here")
@pytest.mark.parametrize("limit_kib", [40_000, 100_000, 200_000, 300_000, 450_000])
def test_too_little_memory_is_told_in_a_line(limit_kib):
    """Wherever it runs out: in the plan, in the files, in threads, in weights or in the pool."""
    result = subprocess.run(
        ["bash", "-c", f'ulimit -c 0 -v {limit_kib}; exec "$@"', "-", str(BIN / "tandem"), "serve",
         "--target", str(TARGET), "--draft", str(DRAFT), "--listen", "127.0.0.1:0",
         "--metrics-listen", "127.0.0.1:0"],
        capture_output=True, text=True, timeout=60, check=False)
    if result.returncode == 1 and "signal 6" in result.stderr:
        return  # gRPC itself aborts where it gets no thread: one start in some thirty
    lines = [line for line in result.stderr.strip().splitlines()
             if not line.startswith(("load ", "plan ", "     ", "{"))]
    assert len(lines) == 1 and lines[0].startswith("tandem: "), result.stderr
    assert re.search(r"memory|thread", lines[0]), result.stderr
    assert result.returncode == 4, result.stderr


@pytest.fixture
def moving_clock(tmp_path, monkeypatch):
    """set(seconds): the time of day of all processes that start from here on, against ours."""
    file = tmp_path / "offset"
    file.write_bytes(struct.pack("q", 0))
    library = os.environ.get("TANDEM_CLOCK_JUMP")
    if library is None:
        pytest.skip("the preloaded clock is not built here")
    monkeypatch.setenv("LD_PRELOAD", library)
    monkeypatch.setenv("TANDEM_CLOCK_OFFSET", str(file))

    def set_offset(seconds):
        with open(file, "r+b", buffering=0) as out:
            out.write(struct.pack("q", seconds))

    yield set_offset


HOUR = 3600


def test_a_time_of_day_that_jumps_changes_nothing(api, moving_clock):
    server = Server("--log-level", "debug").wait_ready()
    try:
        client = Client(api, server.address)
        request = client.request("Once upon a time", max_tokens=120, temperature=0.8, seed=3)
        peace = client.run(request)[1]
        for offset in (HOUR, -HOUR):  # of two hours, the second
            call = client.stub.Generate(request, timeout=120 * SLOW)
            next(call)
            moving_clock(offset)
            assert [token for event in call for token in event.delta.token_ids] == peace
        seen = len(server.log)
        moving_clock(400 * 24 * HOUR)  # it does reach them
        client.generate("Hi", max_tokens=1)
        server.wait_log(rf'"time":"(?!{time.gmtime().tm_year})', start=seen)
        moving_clock(-HOUR)
        assert server.metric("tandem_worker_restarts_total") == 0
        assert not [line for line in server.log if "lost the" in line], server.log
    finally:
        assert server.stop() == 0
