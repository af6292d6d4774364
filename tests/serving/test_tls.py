"""TLS from end to end: `tandem serve`, the command line, and a client of another language."""

import re
import subprocess

import grpc
import pytest

from conftest import BIN, Client


def tandem(*arguments):
    return subprocess.run([str(BIN / "tandem"), *map(str, arguments)], capture_output=True,
                          text=True, timeout=120, check=False)


def generate(address, *flags):
    return tandem("generate", "--endpoint", address, "--prompt", "Once upon a time",
                  "--max-tokens", 4, *flags)


def test_tls_serves_those_who_trust_it(api, pem, start_server):
    server = start_server("--tls-cert", str(pem / "server.crt"), "--tls-key",
                          str(pem / "server.key"))
    answer = generate(server.address, "--tls-ca", pem / "ca.crt")
    assert answer.returncode == 0 and answer.stdout, answer.stderr
    for flags in ([], ["--tls-ca", pem / "other.crt"]):  # plaintext; a stranger's signature
        refused = generate(server.address, *flags)
        assert refused.returncode == 5
        assert re.search(r"--tls-ca", refused.stderr), refused.stderr
    # What it suggests works as it stands.
    server.wait_log(r"^try .* --tls-ca")

    credentials = grpc.ssl_channel_credentials((pem / "ca.crt").read_bytes())
    with grpc.secure_channel(server.address, credentials) as channel:
        client = Client(api, server.address)
        stub = api.grpc.GatewayServiceStub(channel)
        events = list(stub.Generate(client.request("Once upon a time", max_tokens=4)))
        assert events[-1].finished.usage.output_tokens == 4


def test_mutual_tls_asks_for_a_certificate(pem, start_server):
    server = start_server("--tls-cert", str(pem / "server.crt"), "--tls-key",
                          str(pem / "server.key"), "--tls-ca", str(pem / "ca.crt"))
    ours = ["--tls-cert", pem / "client.crt", "--tls-key", pem / "client.key"]
    answer = generate(server.address, "--tls-ca", pem / "ca.crt", *ours)
    assert answer.returncode == 0 and answer.stdout, answer.stderr
    assert generate(server.address, "--tls-ca", pem / "ca.crt").returncode == 5


@pytest.mark.parametrize("flags,word", [
    (["--tls-cert", "{}/server.crt"], "--tls-key"),
    (["--tls-cert", "{}/server.crt", "--tls-key", "{}/client.key"], "client.key"),
    (["--tls-cert", "{}/none.crt", "--tls-key", "{}/server.key"], "none.crt"),
    (["--listen", "0.0.0.0:0"], "--insecure"),
])
def test_what_cannot_be_served_is_told_before_loading(pem, flags, word):
    from conftest import TARGET

    flags = [flag.format(pem) for flag in flags]
    result = tandem("serve", "--target", TARGET, "--no-draft", "--metrics-listen", "127.0.0.1:0",
                    *flags)
    assert result.returncode == 2
    assert word in result.stderr.strip().splitlines()[-1]
