"""The three processes in namespaces of their own, as containers of one pod have them.

Stricter than the overlay dra: network, IPC, PID and mount namespaces are all apart, and only the
folder of the sockets and the models are common.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

import grpc
import pytest
from serving.conftest import BIN, DRAFT, START_TIMEOUT_S, TARGET, Client

TOOLS = BIN.parent / "test_bin"
NAMESPACES = ["--net", "--ipc", "--mount", "--pid", "--mount-proc"]


def unshare(*namespaces):
    """The command that puts what follows into namespaces; without root, of a user of its own."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
    return ["unshare", *user, *namespaces, "--fork", "--kill-child"]


class Contained:
    """A program of Tandem in its own namespaces; lines of both outputs are kept."""

    def __init__(self, program, *arguments, before=""):
        script = f'{before} exec "$@"'
        self.process = subprocess.Popen(
            [*unshare(*NAMESPACES), "sh", "-c", script, "sh", str(BIN / program),
             *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.log = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.log.append(line.rstrip())

    def wait_line(self, text):
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            for line in list(self.log):
                if text in line:
                    return line
            assert self.process.poll() is None, "\n".join(self.log)
            time.sleep(0.02)
        raise AssertionError(f"no '{text}':\n" + "\n".join(self.log))

    def inner_pid(self):
        """The program's number as seen from here: the child of unshare."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text().split()[0])

    def stop(self):
        """SIGTERM to the program itself, as the kubelet does."""
        if self.process.poll() is None:
            os.kill(self.inner_pid(), signal.SIGTERM)
        return self.process.wait(30)


class Pod:
    """Gateway, draft and target with a folder in common. The gateway is reached by its socket."""

    def __init__(self, folder, draft_before=""):
        self.address = f"unix:{folder}/gateway.sock"
        target, draft = f"unix:{folder}/target.sock", f"unix:{folder}/draft.sock"
        self.target = Contained("tandem-target", "--model", TARGET, "--listen", target, "--ctx",
                                "512", "--log-level", "debug")
        self.draft = Contained("tandem-draft", "--model", DRAFT, "--listen", draft, "--ctx", "512",
                               before=draft_before)
        self.target.wait_line('"ready"')
        self.draft.wait_line('"ready"')
        # 0.0.0.0: the loopback interface of a new network namespace is down.
        self.gateway = Contained("tandem-gateway", "--target", target, "--draft", draft,
                                 "--listen", self.address, "--metrics-listen", "0.0.0.0:0",
                                 "--log-level", "debug")
        self.gateway.wait_line('"event":"ready"')

    def stop(self):
        codes = [process.stop() for process in (self.gateway, self.draft, self.target)]
        assert codes == [0, 0, 0], codes


@pytest.fixture
def folder():
    """Short: a socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="tandem.") as name:
        yield name


def namespaces_of(process):
    return {kind: os.readlink(f"/proc/{process.inner_pid()}/ns/{kind}")
            for kind in ("net", "ipc", "mnt", "pid")}


def connected(pod, role):
    return [json.loads(line)["message"] for line in pod.gateway.log
            if f"connected to the {role}" in line]


def test_sockets_and_shared_memory_cross_namespaces(api, models, folder):
    pod = Pod(folder)
    try:
        apart = [namespaces_of(process) for process in (pod.gateway, pod.draft, pod.target)]
        for kind in apart[0]:
            assert len({own[kind] for own in apart}) == 3, kind
        # Steps go by the ring, a memfd that was passed over a socket; so does the page pool.
        for role in ("target", "draft"):
            assert any("by ring" in line for line in connected(pod, role)), pod.gateway.log
        client = Client(api, pod.address)
        plain = client.generate("The sea was calm and", max_tokens=24, mode="OFF")
        drafted = client.generate("The sea was calm and", max_tokens=24, mode="DRAFT")
        assert drafted[1] == plain[1]
        # Rejected and accepted drafts show that the draft reads its own pages of the pool.
        assert drafted[2].speculation.accepted_token_count > 0
        rejection = client.generate("The sea was calm and", max_tokens=24, mode="DRAFT",
                                    rule="REJECTION", temperature=0.7, seed=3)
        assert rejection[2].speculation.draft_token_count > 0
    finally:
        pod.stop()


def test_a_worker_that_is_restarted_alone_is_found_again(api, models, folder):
    """What the kubelet does with one container of a pod."""
    pod = Pod(folder)
    try:
        client = Client(api, pod.address)
        before = client.generate("1 2 3 4", max_tokens=8)[1]
        os.kill(pod.target.inner_pid(), signal.SIGKILL)
        pod.target.process.wait(30)
        pod.target = Contained("tandem-target", "--model", TARGET, "--listen",
                               f"unix:{folder}/target.sock", "--ctx", "512")
        pod.target.wait_line('"ready"')
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                assert client.generate("1 2 3 4", max_tokens=8)[1] == before
                break
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                assert time.monotonic() < deadline
    finally:
        pod.stop()


def test_a_folder_that_is_not_shared_is_named(api, models, folder):
    """The draft has the socket folder for itself: the server serves, and says what it lacks."""
    pod = Pod(folder, draft_before=f"mount -t tmpfs none {folder};")
    try:
        line = pod.gateway.wait_line("without the draft")
        assert f"{folder}/draft.sock" in line, line
        _, ids, finished = Client(api, pod.address).generate("1 2 3 4", max_tokens=8)
        assert len(ids) == 8
        assert finished.speculation.draft_token_count == \
            finished.speculation.lookup_draft_token_count
    finally:
        pod.stop()


@pytest.mark.parametrize("namespaces, before, cause", [
    ([], "", "no known cause"),
    (["--pid"], "", "two PID namespaces"),
    (["--mount"], "mount -t tmpfs none /dev/shm;", "/dev/shm"),
])
def test_the_diagnosis_of_device_memory_looks_at_the_namespaces(namespaces, before, cause):
    """What a CUDA worker says when its pages cannot be opened by the peer."""
    peer = subprocess.Popen([*unshare(*namespaces), "sh", "-c", f"{before} echo ready; read x"],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert peer.stdout.readline() == "ready\n"
        children = pathlib.Path(f"/proc/{peer.pid}/task/{peer.pid}/children").read_text()
        result = subprocess.run([str(TOOLS / "sharing_diagnosis"), children.split()[0]],
                                capture_output=True, text=True, check=True)
        assert cause in result.stdout
    finally:
        peer.stdin.close()
        peer.wait(10)
