"""A running server and a client of another language for the tests of this folder."""

import collections
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import grpc
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("TANDEM_BIN", ROOT / "build" / "bin"))
MODELS = ROOT / "build" / "models"
TARGET = pathlib.Path(
    os.environ.get("TANDEM_TEST_MODEL", MODELS / "smollm2-135m-instruct.q4_1.gguf"))
DRAFT = pathlib.Path(
    os.environ.get("TANDEM_TEST_DRAFT", MODELS / "smollm2-135m-instruct.first6.q4_1.gguf"))
READY = re.compile(r"^ready  (?:gateway is back, )?grpc (\S+) · metrics (http://\S+)")
SLOW = int(os.environ.get("TANDEM_SLOW", "1"))  # under a sanitizer: how many times slower
START_TIMEOUT_S = 60 * SLOW


@pytest.fixture(scope="session")
def api(tmp_path_factory):
    """The generated modules: api.pb (messages) and api.grpc (stubs)."""
    from grpc_tools import protoc

    out = tmp_path_factory.mktemp("stubs")
    proto = ROOT / "proto" / "tandem" / "gateway" / "v1" / "gateway.proto"
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    status = protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"-I{include}", f"--python_out={out}",
                          f"--grpc_python_out={out}", str(proto)])
    assert status == 0
    sys.path.insert(0, str(out))
    from tandem.gateway.v1 import gateway_pb2, gateway_pb2_grpc

    return collections.namedtuple("Api", "pb grpc")(gateway_pb2, gateway_pb2_grpc)


class Server:
    """`tandem serve` on free ports, its log kept for the failure message."""

    def __init__(self, *arguments, target=TARGET, draft=DRAFT):
        command = [str(BIN / "tandem"), "serve", "--target", str(target), "--listen",
                   "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", *arguments]
        command += ["--draft", str(draft)] if draft else ["--no-draft"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                        text=True)
        self.log = []
        self.ready = threading.Event()
        self.address = self.metrics_url = None
        threading.Thread(target=self._read_log, daemon=True).start()

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line.rstrip())
            match = READY.match(line)
            if match:
                self.address, self.metrics_url = match.groups()
                self.ready.set()
        self.ready.set()

    def wait_ready(self):
        self.ready.wait(START_TIMEOUT_S)
        assert self.address, "not ready:\n" + "\n".join(self.log)
        return self

    def wait_log(self, pattern, timeout_s=30, start=0):
        """Waits until a line of the log matches; the index after it."""
        deadline = time.monotonic() + timeout_s * SLOW
        while time.monotonic() < deadline:
            for index in range(start, len(self.log)):
                if re.search(pattern, self.log[index]):
                    return index + 1
            time.sleep(0.02)
        raise AssertionError(f"no line matches {pattern}:\n" + "\n".join(self.log))

    def worker_pid(self, name):
        """The process id of `target`, `draft` or `gateway`."""
        out = subprocess.run(["pgrep", "-P", str(self.process.pid), "-f", f"tandem-{name}"],
                             capture_output=True, text=True, check=False).stdout.split()
        assert len(out) == 1, (name, out, self.log)
        return int(out[0])

    def kill_worker(self, name, sig=signal.SIGKILL):
        os.kill(self.worker_pid(name), sig)

    def metrics(self):
        """All samples of /metrics: {'name{labels}': value}."""
        with urllib.request.urlopen(self.metrics_url, timeout=10) as response:
            text = response.read().decode()
        samples = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                samples[name] = float(value)
        return samples

    def metric(self, name, **labels):
        """The sum of the samples of `name` whose labels contain `labels`."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(value for key, value in self.metrics().items()
                   if key.split("{")[0] == name and all(label in key for label in wanted))

    def wait_metric(self, predicate, timeout_s=20):
        deadline = time.monotonic() + timeout_s * SLOW
        while time.monotonic() < deadline:
            if predicate(self):
                return
            time.sleep(0.05)
        raise AssertionError("metric condition not met:\n" + "\n".join(self.log[-40:]))

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(30 * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        reports = [line for line in self.log if "Sanitizer" in line or "runtime error:" in line]
        assert not reports, "\n".join(self.log)
        return code


class Client:
    """The service as a Python program calls it."""

    def __init__(self, api, address):
        self.pb = api.pb
        self.channel = grpc.insecure_channel(address)
        self.stub = api.grpc.GatewayServiceStub(self.channel)

    def request(self, prompt=None, *, chat=None, token_ids=None, max_tokens=32, mode="AUTO",
                rule="COUPLED", draft_length=0, **sampling):
        pb = self.pb
        request = pb.GenerateRequest(
            stopping=pb.Stopping(max_tokens=max_tokens), sampling=pb.Sampling(**sampling),
            speculation=pb.Speculation(mode=f"MODE_{mode}", rule=f"RULE_{rule}",
                                       draft_length=draft_length),
            output=pb.Output(token_ids=True))
        if prompt is not None:
            request.prompt = prompt
        if token_ids is not None:
            request.token_ids.ids.extend(token_ids)
            request.token_ids.SetInParent()
        for role, content in chat or []:
            request.chat.messages.add(role=role, content=content)
        return request

    def run(self, request, **kwargs):
        """(text, token ids, finished event) of a whole answer."""
        text, ids, finished = "", [], None
        for response in self.stub.Generate(request, **kwargs):
            if response.HasField("delta"):
                text += response.delta.text
                ids.extend(response.delta.token_ids)
            elif response.HasField("finished"):
                finished = response.finished
        return text, ids, finished

    def generate(self, *args, **kwargs):
        return self.run(self.request(*args, **kwargs))


@pytest.fixture(scope="session", autouse=True)
def models():
    if not TARGET.exists() or not DRAFT.exists():
        pytest.fail(f"no model at {TARGET}: run scripts/setup --tests")


@pytest.fixture(scope="module")
def server():
    server = Server().wait_ready()
    yield server
    assert server.stop() == 0, "\n".join(server.log)


@pytest.fixture
def start_server():
    """start_server(*flags): a server of this test's own."""
    servers = []

    def start(*arguments, **kwargs):
        servers.append(Server(*arguments, **kwargs).wait_ready())
        return servers[-1]

    yield start
    for server in servers:
        assert server.stop() == 0, "\n".join(server.log)


@pytest.fixture
def client(api, server):
    return Client(api, server.address)


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """Folder of ca, server and client, each NAME.crt and NAME.key; `other` signs nobody."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], cwd=folder, check=True,
                       capture_output=True)

    for name in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for name in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout",
                f"{name}.key", "-out", f"{name}.csr")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
                "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", f"{name}.crt")
    return folder
