"""The Python package of clients/python against a server, its types, and its example programs."""

import asyncio
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import generate_messages
import grpc
import pytest
from serving.conftest import BIN, Server

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "clients" / "python"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def messages(tmp_path_factory):
    """The folder with the generated messages, as an installed package would have them."""
    out = tmp_path_factory.mktemp("messages")
    generate_messages.generate(out)
    sys.path.insert(0, str(out))
    return out


@pytest.fixture(scope="module")
def server(models):
    server = Server("--max-waiting", "0", "--max-running", "2", "--max-requests-per-client", "0",
                    "--log-level", "info").wait_ready()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def client(messages, server):
    import tandem_client

    with tandem_client.Client(server.address) as client:
        yield client


def test_streams_an_answer(client):
    from tandem_client import Options

    options = Options(max_tokens=12, token_ids=True)
    stream = client.generate("The sea was", options)
    deltas = list(stream)
    assert "".join(delta.text for delta in deltas) == stream.answer.text
    assert len(stream.answer.token_ids) == 12
    assert stream.answer.finish_reason == "max_tokens"
    assert stream.answer.started.prompt_tokens == 3
    assert client.complete("The sea was", options).text == stream.answer.text
    off = Options(max_tokens=12, token_ids=True, mode="off")
    assert client.complete("The sea was", off).token_ids == stream.answer.token_ids


def test_takes_chats_and_token_ids(client):
    from tandem_client import Message, Options

    chat = client.complete([Message("user", "Say hello.")], Options(max_tokens=4))
    assert chat.finished.usage.prompt_tokens > 5
    ids = client.tokenize("The sea was")
    assert client.detokenize(ids) == "The sea was"
    same = [client.complete(prompt, Options(max_tokens=4)).text for prompt in (ids, "The sea was")]
    assert same[0] == same[1]
    assert client.get_model().target.up


def test_every_field_of_the_contract_can_be_set(client):
    """Options has what GenerateRequest has: one that is added there is missed here. So have the
    arguments of the other methods what their requests have."""
    import dataclasses
    import inspect

    from tandem.gateway.v1 import gateway_pb2 as pb
    from tandem_client import AsyncClient, Client, Options

    def fields(*messages, without):
        found = {field.name for message in messages for field in message.DESCRIPTOR.fields}
        return found - without

    options = {field.name for field in dataclasses.fields(Options)}
    parts = {"sampling", "stopping", "speculation", "output"}
    prompt = {"prompt", "token_ids", "chat", "messages"}
    assert options == fields(pb.GenerateRequest, pb.Chat, without=parts | prompt) | fields(
        pb.Sampling, pb.Stopping, pb.Speculation, pb.Output, without=set())
    for kind in (Client, AsyncClient):
        for method, expected in (
                ("tokenize", fields(pb.TokenizeRequest, pb.Chat, without={"chat", "messages"})),
                ("render", fields(pb.Chat, without=set()) | {"model"}),
                ("detokenize", fields(pb.DetokenizeRequest, without=set())),
                ("get_model", fields(pb.GetModelRequest, without=set()))):
            arguments = inspect.signature(getattr(kind, method)).parameters
            assert set(arguments) - {"self"} == expected, (kind, method)

    stream = client.generate("The sea was", Options(max_tokens=4, min_tokens=4, top_logprobs=2,
                                                    ignore_eos=True, priority=3))
    for delta in stream:
        assert all(len(top) == 2 for top in delta.top_logprobs)
    assert stream.answer.finished.usage.output_tokens == 4


def test_a_stop_that_is_a_text_is_one_stop(messages):
    """It was one for each of its letters."""
    from tandem_client import Options
    from tandem_client.requests import to_message

    for stop, stops in (("abc", ["abc"]), (("a", "bc"), ["a", "bc"]), ((), [])):
        assert to_message("x", Options(stop=stop)).stopping.stop == stops


def test_messages_may_be_mappings(client):
    from tandem_client import Message, Options

    plain = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello."}]
    mixed = [Message("system", "Be short."), plain[1]]
    one, two = (client.complete(chat, Options(max_tokens=4)) for chat in (plain, mixed))
    assert one.text == two.text
    assert one.finished.usage.prompt_tokens == two.finished.usage.prompt_tokens > 10


@pytest.mark.parametrize("prompt, words", [
    ({"role": "user", "content": "x"}, "put it into a list"),
    ([{"role": "user"}], r"message 0 has \['role'\]"),
    ([{"role": "user", "content": "x", "name": "y"}], "not just role and content"),
    ([{"role": "user", "content": [{"type": "text", "text": "x"}]}], "content of message 0"),
    ([{"role": "user", "content": "x"}, "y"], "message 1 is a str"),
    (["Hello", "world"], "a list with a str"),
    ([1, {"role": "user", "content": "x"}], "a list with a dict"),
    (b"bytes are no token ids", "not bytes"),
    (None, "not NoneType"),
])
def test_what_is_no_prompt_is_a_type_error_that_says_so(messages, prompt, words):
    from tandem_client import Options
    from tandem_client.requests import to_message

    with pytest.raises(TypeError, match=words):
        to_message(prompt, Options())


def test_a_lone_message_is_no_prompt(messages):
    from tandem_client import Message, Options
    from tandem_client.requests import to_message

    with pytest.raises(TypeError, match="put it into a list"):
        to_message(Message("user", "x"), Options())


def test_conversations_are_rendered_and_tokenized(client):
    """As generate sees them, with and without the header of the answer."""
    from tandem_client import Message, Options

    chat = [Message("user", "Hello.")]
    for omit in (False, True):
        ids = client.tokenize(chat, omit_generation_prompt=omit)
        text = client.render(chat, omit_generation_prompt=omit)
        assert text.endswith("<|im_start|>assistant\n") is not omit
        assert client.tokenize(text, parse_special_tokens=True) == ids
        answer = client.complete(chat, Options(max_tokens=1, omit_generation_prompt=omit))
        assert answer.finished.usage.prompt_tokens == len(ids)
        assert client.detokenize(ids, render_special_tokens=True) == text
        assert "<|im_start|>" not in client.detokenize(ids)
    assert client.tokenize("Hello", add_special_tokens=True)[-1:] == client.tokenize("Hello")


def test_each_draft_is_told_when_asked_for(client):
    from tandem_client import Options

    for wanted in (False, True):
        options = Options(max_tokens=12, mode="draft", draft_length=2, speculation_trace=wanted)
        report = client.complete("The sea was", options).finished.speculation
        assert bool(report.trace) is wanted
        if wanted:
            assert sum(step.accepted for step in report.trace) == report.accepted_token_count


def test_a_client_with_a_key_is_one_client(messages, models):
    from tandem_client import Client, Options, TandemError

    server = Server("--max-requests-per-client", "1", "--max-queued-tokens", "60").wait_ready()
    try:
        with Client(server.address, api_key="one") as one, \
                Client(server.address, api_key="two") as two:
            long = one.generate("1 2 3", Options(max_tokens=400, ignore_eos=True))
            with pytest.raises(TandemError) as caught:
                one.complete("4 5 6", Options(max_tokens=1))
            assert caught.value.is_overload and caught.value.reason == "CLIENT_LIMIT"
            assert two.complete("4 5 6", Options(max_tokens=1)).finished
            with pytest.raises(TandemError) as caught:
                two.complete("word " * 100, Options(max_tokens=1))
            assert caught.value.is_overload and caught.value.reason == "TOKEN_LIMIT"
            long.cancel()
        for reason in ("client_limit", "queued_tokens"):
            assert server.metric("tandem_requests_rejected_total", reason=reason) == 1
    finally:
        assert server.stop() == 0


def test_errors_carry_reason_and_fields(client):
    from tandem_client import Options, TandemError

    with pytest.raises(TandemError) as caught:
        client.complete("x", Options(temperature=-1.0))
    error = caught.value
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "INVALID_FIELD"
    assert any("temperature" in field for field in error.fields), error.fields
    assert not error.is_overload


def test_a_full_server_is_tried_again_when_asked(client):
    from tandem_client import Options, TandemError

    long = Options(max_tokens=400)
    first = [client.generate("1 2 3", long), client.generate("4 5 6", long)]
    with pytest.raises(TandemError) as caught:
        client.complete("7 8 9", Options(max_tokens=1))
    assert caught.value.is_overload and caught.value.retry_delay_s > 0
    for stream in first:
        stream.cancel()
    assert client.complete("7 8 9", Options(max_tokens=1), overload_retries=20).finished


def test_asynchronous_streams(messages, server):
    from tandem_client import AsyncClient, Options, TandemError

    async def run():
        async with AsyncClient(server.address) as client:
            stream = await client.generate("The sea was", Options(max_tokens=8))
            text = "".join([delta.text async for delta in stream])
            assert text == stream.answer.text and stream.answer.finish_reason == "max_tokens"
            cancelled = await client.generate("1 2 3", Options(max_tokens=400))
            await anext(cancelled)
            cancelled.cancel()
            both = await asyncio.gather(*(client.complete(
                prompt, Options(max_tokens=4), overload_retries=20) for prompt in ("a", "b")))
            assert all(answer.finished for answer in both)
            assert (await client.get_model()).model
            assert await client.detokenize(await client.tokenize("The sea was")) == "The sea was"
            chat = [{"role": "user", "content": "Hello."}]
            text = await client.render(chat)
            ids = await client.tokenize(chat)
            assert ids == await client.tokenize(text, parse_special_tokens=True)
            assert await client.detokenize(ids, render_special_tokens=True) == text
            with pytest.raises(TandemError) as caught:
                await client.detokenize([-1])
            assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
            async with await client.generate("1 2 3", Options(max_tokens=400)) as left:
                await anext(left)
        return left

    assert asyncio.run(run()).answer.finished is None


def test_tls_is_spoken_and_asked_for(messages, models, pem):
    """Both clients, with a certificate of their own; who has none is nobody's client."""
    from tandem_client import AsyncClient, Client, Options, TandemError, Tls

    ours = Tls(pem / "ca.crt", pem / "client.crt", pem / "client.key")
    server = Server("--tls-cert", str(pem / "server.crt"), "--tls-key", str(pem / "server.key"),
                    "--tls-ca", str(pem / "ca.crt")).wait_ready()

    async def run():
        async with AsyncClient(server.address, ours) as client:
            return (await client.complete("The sea was", Options(max_tokens=4))).text

    try:
        with Client(server.address, ours) as client:
            assert client.complete("The sea was", Options(max_tokens=4)).text == asyncio.run(run())
        with Client(server.address, Tls(pem / "ca.crt")) as stranger:
            with pytest.raises(TandemError) as caught:
                stranger.complete("x", Options(max_tokens=1), timeout_s=10)
            assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    finally:
        assert server.stop() == 0


def test_the_package_that_pip_makes_is_whole(tmp_path):
    """The messages are made while it is built; its parts are found without the source tree."""
    source = tmp_path / "source"
    keep_out = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    shutil.copytree(PACKAGE, source / "clients" / "python", ignore=keep_out)
    shutil.copytree(ROOT / "proto", source / "proto")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index",
                    "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir",
                    str(tmp_path), str(source / "clients" / "python")], check=True)
    wheel, = tmp_path.glob("tandem_client-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"tandem_client/py.typed", "tandem_client/service_config.json",
            "tandem/gateway/v1/gateway_pb2.pyi"} <= names
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    program = "import tandem_client as c; print(c.Client('127.0.0.1:1'), c.Options())"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True,
                   env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")})


def test_unavailable_is_tried_again_by_the_service_config(messages):
    """Nothing listens: four attempts with their backoff, then the error; no endless waiting."""
    from tandem_client import Client, TandemError, channel

    policy = json.loads(channel.service_config())["methodConfig"][0]["retryPolicy"]
    assert policy["retryableStatusCodes"] == ["UNAVAILABLE"] and policy["maxAttempts"] == 4
    with Client("127.0.0.1:1") as client:
        with pytest.raises(TandemError) as caught:
            client.complete("x", timeout_s=10)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def test_retries_end_with_the_first_message(messages):
    """Against a server of the test's own: away twice, then there, then lost in an answer."""
    from tandem.gateway.v1 import gateway_pb2 as pb
    from tandem.gateway.v1 import gateway_pb2_grpc
    from tandem_client import AsyncClient, Client, TandemError

    calls = []

    class Moody(gateway_pb2_grpc.GatewayServiceServicer):
        def Generate(self, request, context):
            calls.append(request.prompt)
            if request.prompt == "lost":
                yield pb.GenerateResponse(delta=pb.Delta(text="a"))
            if request.prompt == "lost" or len(calls) < 3:
                context.abort(grpc.StatusCode.UNAVAILABLE, "away")
            yield pb.GenerateResponse(finished=pb.Finished())

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    gateway_pb2_grpc.add_GatewayServiceServicer_to_server(Moody(), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()

    async def run(prompt):
        async with AsyncClient(address) as client:
            return await client.complete(prompt, timeout_s=20)

    def run_both(prompt):
        with Client(address) as client:
            yield lambda: client.complete(prompt, timeout_s=20)
        yield lambda: asyncio.run(run(prompt))

    try:
        for complete in run_both("away"):
            calls.clear()
            assert complete().finished is not None and len(calls) == 3
        for complete in run_both("lost"):
            calls.clear()
            with pytest.raises(TandemError) as caught:
                complete()
            assert caught.value.code is grpc.StatusCode.UNAVAILABLE and len(calls) == 1
    finally:
        server.stop(None)


def test_a_trace_reaches_the_logs_of_all_processes(client, server):
    from tandem_client import Options

    start = len(server.log)
    prompt = "a secret sentence that no log may hold"
    # Drafted by the draft model, so that both workers see it.
    client.complete(prompt, Options(max_tokens=8, mode="draft", request_id="traced"),
                    traceparent=TRACEPARENT)
    server.wait_log('"request over".*"trace_id"', start=start)
    lines = [json.loads(line) for line in server.log[start:] if line.startswith("{")]
    traced = [line for line in lines if line.get("trace_id") == TRACEPARENT.split("-")[1]]
    assert {line["component"] for line in traced} == {"gateway", "target", "draft"}
    over = next(line for line in traced if line["message"] == "request over")
    assert over["request_id"] == "traced" and over["code"] == "OK"
    assert over["parent_id"] == TRACEPARENT.split("-")[2]
    assert not any("secret" in line for line in server.log)


def test_a_bad_trace_is_ignored(client):
    from tandem_client import Options

    assert client.complete("x", Options(max_tokens=1), traceparent="00-nonsense-01").finished


def test_examples_run(messages, server):
    environment = {**os.environ, "PYTHONPATH": f"{PACKAGE}{os.pathsep}{messages}"}
    for arguments in (["stream.py", server.address, "Say hello."],
                      ["many.py", server.address, "One two", "Three four"]):
        result = subprocess.run([sys.executable, str(PACKAGE / "examples" / arguments[0]),
                                 *arguments[1:]], env=environment, capture_output=True, text=True,
                                check=False, timeout=60)
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip()


def test_the_example_in_cpp_runs(server):
    example = BIN.parent / "test_bin" / "tandem-client-example"
    result = subprocess.run([str(example), server.address, "Say hello."], capture_output=True,
                            text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
    refused = subprocess.run([str(example), "127.0.0.1:1", "x"], capture_output=True, text=True,
                             check=False, timeout=60)
    assert refused.returncode == 1 and "UNAVAILABLE" in refused.stderr


def test_all_clients_publish_one_service_config():
    config = (PACKAGE / "tandem_client" / "service_config.json").read_text(encoding="utf-8")
    for example in ("cpp/stream.cc", "go/stream.go"):
        text = (ROOT / "clients" / example).read_text(encoding="utf-8")
        found = re.search(r"\{\s*\"loadBalancingConfig\".*?\n\}", text, re.S).group(0)
        assert json.loads(found) == json.loads(config), example


def test_types_are_sound(messages):
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(PACKAGE / "pyproject.toml"),
         "--cache-dir", str(messages / "mypy"), "-p", "tandem_client"], cwd=messages,
        env={**os.environ, "MYPYPATH": f"{PACKAGE}{os.pathsep}{messages}"},
        capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
