"""What `tandem doctor` says of a machine where a server runs, and of what a draft may gain."""

import re
import socket
import subprocess
import sys

import pytest
from conftest import BIN, DRAFT, ROOT, TARGET

sys.path.append(str(ROOT / "bench"))
import plot_drafts  # noqa: E402

MODELS = ["--target", TARGET, "--draft", DRAFT]


def tandem(*arguments):
    return subprocess.run([str(BIN / "tandem"), *map(str, arguments)], capture_output=True,
                          text=True, timeout=120, check=False)


def port_line(result):
    line, = (line for line in result.stdout.splitlines() if line.split()[1] == "port")
    return line


def test_a_tandem_server_that_has_the_port_is_no_fault(server):
    port = server.address.rsplit(":", 1)[1]
    result = tandem("doctor", *MODELS, "--port", port)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "FAIL" not in result.stdout
    assert "a Tandem server serves" in port_line(result)


@pytest.mark.parametrize("speaks", [False, True])
def test_another_program_that_has_the_port_is_one(speaks):
    """One that says nothing, and one that speaks gRPC but has not our service."""
    if speaks:
        import concurrent.futures

        import grpc

        other = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
        port = other.add_insecure_port("127.0.0.1:0")
        other.start()
    else:
        other = socket.create_server(("127.0.0.1", 0))
        port = other.getsockname()[1]
    try:
        result = tandem("doctor", "--port", port)
    finally:
        other.stop(None) if speaks else other.close()
    assert result.returncode == 1, result.stdout
    line = port_line(result)
    assert line.startswith("FAIL") and "is taken" in line and "--listen" in line


def test_a_server_with_tls_is_not_asked_but_named_as_a_reason(pem, start_server):
    server = start_server("--tls-cert", str(pem / "server.crt"), "--tls-key",
                          str(pem / "server.key"))
    port = server.address.rsplit(":", 1)[1]
    result = tandem("doctor", "--port", port)
    assert result.returncode == 1 and "TLS" in port_line(result)
    assert tandem("doctor", "--port", 0).returncode == 0


@pytest.mark.parametrize("device, row", [("cpu", plot_drafts.CPU_ROW), ("cuda", 0.0)])
def test_the_speed_it_predicts_is_that_of_the_plot(device, row):
    """It had 1.72x at acceptance 0.65 for the draft of 0.678 that measures 1.24x on a CPU:
    rows verified cost nothing."""
    draft = ROOT / "models" / "smollm2-135m-instruct.tiny.q4_1.gguf"
    result = tandem("doctor", "--port", 0, "--target", TARGET, "--draft", draft, "--device",
                        device, "--vram-budget", "8GiB")
    assert result.returncode == 0, result.stdout + result.stderr
    line, = (line for line in result.stdout.splitlines() if line.split()[1] == "speed")
    cost = float(re.search(r"reads (\S+) of the target's weights", line).group(1))
    assert float(re.search(r"takes (\S+) of a step to verify", line).group(1)) == row
    told = {float(rate): float(speed) for speed, rate in
            re.findall(r"(\d\.\d\d)x at acceptance (0\.\d\d)", line)}
    assert list(told) == [0.5, 0.65, 0.8]
    for rate, speed in told.items():
        # What is printed is rounded to hundredths, the cost too.
        low, high = (plot_drafts.speed(rate, cost + off, row) for off in (0.005, -0.005))
        assert low - 0.005 <= speed <= high + 0.005, line
