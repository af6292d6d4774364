"""Clients that are killed, that flood, that speak HTTP/2 wrongly; those who watch health."""

import resource
import socket
import struct
import subprocess
import sys
import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from conftest import SLOW, Client

SERVICE = "tandem.gateway.v1.GatewayService"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, CONTINUATION = 1, 3, 4, 9
END_HEADERS = 4


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(
        ">I", stream) + payload


def literal(name, value):
    """A header that is not indexed, without Huffman coding (RFC 7541, 6.2.2)."""
    def text(data):
        length = len(data)
        if length < 127:
            return bytes([length]) + data
        rest = length - 127
        out = bytearray([127])
        while rest >= 128:
            out.append(rest % 128 + 128)
            rest //= 128
        return bytes(out) + bytes([rest]) + data
    return b"\x00" + text(name) + text(value)


def request_headers(*more):
    names = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"x"),
             (b":path", b"/tandem.gateway.v1.GatewayService/GetModel"),
             (b"content-type", b"application/grpc"), *more]
    return b"".join(literal(name, value) for name, value in names)


def attacks():
    """Bytes after the preface, by name."""
    settings = frame(SETTINGS, 0, 0, b"")
    yield "te that is wrong with 9 KB of headers (CVE-2023-1428)", settings + frame(
        HEADERS, END_HEADERS, 1, request_headers((b"te", b"nonsense"), (b"x", b"y" * 9000)))
    yield "scheme that is wrong with 9 KB of headers", settings + frame(
        HEADERS, END_HEADERS, 1, literal(b":scheme", b"nonsense") + request_headers(
            (b"x", b"y" * 9000)))
    yield "10,000 streams that are reset", settings + b"".join(
        frame(HEADERS, END_HEADERS, 2 * i + 1, request_headers()) +
        frame(RST_STREAM, 0, 2 * i + 1, struct.pack(">I", 8)) for i in range(10_000))
    yield "headers without an end", settings + frame(HEADERS, 0, 1, request_headers()) + b"".join(
        frame(CONTINUATION, 0, 1, literal(b"x", b"y" * 8000)) for _ in range(500))
    # An entry of 4 KB in the table, named 100,000 times (HPACK bomb).
    indexed = b"\x40" + literal(b"bomb", b"z" * 3900)[1:]
    yield "a small header block that is large", settings + frame(
        HEADERS, END_HEADERS, 1, indexed + b"\xbe" * 15_000)
    yield "a frame of the largest size", settings + b"\xff\xff\xff" + bytes(200_000)


@pytest.mark.parametrize("name,attack", [pytest.param(*pair, id=pair[0]) for pair in attacks()])
def test_http2_that_is_wrong_harms_nobody(client, server, name, attack):
    pid = server.worker_pid("gateway")
    host, port = server.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        try:
            connection.sendall(PREFACE + attack)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        except OSError:
            pass  # the server may hang up
    assert client.generate("Hi", max_tokens=2)[2].usage.output_tokens == 2
    assert server.worker_pid("gateway") == pid, name


CHILD = """
import sys, grpc
sys.path.insert(0, sys.argv[1])
from tandem.gateway.v1 import gateway_pb2 as pb, gateway_pb2_grpc as rpc
stub = rpc.GatewayServiceStub(grpc.insecure_channel(sys.argv[2]))
call = stub.Generate(pb.GenerateRequest(prompt="Once upon a time",
                                        stopping=pb.Stopping(max_tokens=4000, ignore_eos=True)))
next(call)
print("started", flush=True)
for _ in call:
    pass
"""


def test_a_client_that_is_killed_leaves_nothing(api, client, server):
    import pathlib

    stubs = pathlib.Path(api.pb.__file__).parents[3]
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(stubs), server.address],
                             stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "started\n"
    server.wait_metric(lambda server: server.metric("tandem_requests_running") == 1)
    child.kill()
    child.wait(10)
    server.wait_metric(lambda server: server.metric("tandem_requests_running") == 0
                       and server.metric("tandem_kv_pages", state="used") == 0)


def test_more_connections_than_descriptors(api, start_server):
    """CVE-2023-4785: gRPC 1.51 never accepts again once accepting failed. The gateway notices,
    and gives way to a new one."""
    server = start_server()
    pid = server.worker_pid("gateway")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (256, 256))
    host, port = server.address.rsplit(":", 1)
    many = []
    try:
        for _ in range(400):
            connection = socket.socket()
            connection.settimeout(0.2)
            many.append(connection)
            try:
                connection.connect((host, int(port)))
            except OSError:
                break  # the backlog is full, too
    finally:
        for connection in many:
            connection.close()
    server.wait_log("accepts no connections")
    server.wait_log("ready  gateway is back", timeout_s=60)
    deadline = time.monotonic() + 60 * SLOW
    while True:
        try:
            client = Client(api, server.address)
            assert client.generate("Hi", max_tokens=2)[2].usage.output_tokens == 2
            assert server.worker_pid("gateway") != pid
            return
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_health_is_watched_through_a_death_and_the_drain(api, start_server):
    server = start_server()
    serving, not_serving = (health_pb2.HealthCheckResponse.SERVING,
                            health_pb2.HealthCheckResponse.NOT_SERVING)
    seen = []
    changed = threading.Condition()

    def watch():
        stub = health_pb2_grpc.HealthStub(grpc.insecure_channel(server.address))
        try:
            for response in stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE)):
                with changed:
                    seen.append(response.status)
                    changed.notify_all()
        except grpc.RpcError:
            pass  # the server ended

    def wait_for(statuses):
        with changed:
            assert changed.wait_for(lambda: seen == statuses, 30 * SLOW), seen

    threading.Thread(target=watch, daemon=True).start()
    wait_for([serving])
    server.kill_worker("target")
    wait_for([serving, not_serving, serving])
    client = Client(api, server.address)
    call = client.stub.Generate(client.request("Once upon a time", max_tokens=300))
    next(call)
    server.process.terminate()
    wait_for([serving, not_serving, serving, not_serving])
    assert list(call)[-1].HasField("finished")


def test_signals_that_mean_nothing_change_nothing(client, server):
    import os
    import signal

    for name in ("gateway", "target", "draft"):
        for sig in (signal.SIGHUP, signal.SIGPIPE):
            server.kill_worker(name, sig)
    for sig in (signal.SIGHUP, signal.SIGPIPE):
        os.kill(server.process.pid, sig)
    assert client.generate("Hi", max_tokens=2, mode="DRAFT")[2].usage.output_tokens == 2
    assert server.metric("tandem_worker_restarts_total") == 0
