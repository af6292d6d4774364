"""Bad requests get the right code and a message that helps; the next good one works."""

import math

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc


def code_of(client, request):
    with pytest.raises(grpc.RpcError) as error:
        client.run(request)
    return error.value.code(), error.value.details()


BAD_SAMPLING = [
    ("temperature", math.nan), ("temperature", math.inf), ("temperature", -1), ("top_k", -1),
    ("top_p", 0), ("top_p", 1.5), ("top_p", math.nan), ("min_p", -0.1), ("min_p", 1.5),
    ("repetition_penalty", 0), ("repetition_penalty", math.inf), ("presence_penalty", 3),
    ("frequency_penalty", -3), ("temperature", 1e9),
]


@pytest.mark.parametrize("field,value", BAD_SAMPLING)
def test_bad_sampling_names_the_field(client, field, value):
    request = client.request("Hi", max_tokens=2, **{field: value})
    code, message = code_of(client, request)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert field in message


def test_bad_inputs(client):
    pb = client.pb
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    vocabulary = client.stub.GetModel(pb.GetModelRequest()).vocabulary_size
    cases = [
        client.request(""), client.request(token_ids=[]), client.request(token_ids=[-1]),
        client.request(token_ids=[vocabulary]), pb.GenerateRequest(),
        client.request("Hi", max_tokens=-1), client.request("Hi", draft_length=17),
        client.request("Hi", draft_length=-1), client.request("word " * 9000),
        client.request(chat=[("", "no role")]),
    ]
    for stops in ([""], ["x" * 257], ["stop"] * 17):
        request = client.request("Hi")
        request.stopping.stop.extend(stops)
        cases.append(request)
    for token, bias in ((vocabulary, 1.0), (-1, 1.0), (5, 101.0), (5, math.nan)):
        request = client.request("Hi")
        request.sampling.logit_bias[token] = bias
        cases.append(request)
    request = client.request("Hi")
    request.output.top_logprobs = 21
    cases.append(request)
    request = client.request("Hi")
    request.speculation.mode = 99
    cases.append(request)
    for request in cases:
        code, message = code_of(client, request)
        assert code == invalid, (request, code, message)
        assert len(message) > 10 and "\n" not in message
    assert client.generate("Hi", max_tokens=2)[2].usage.output_tokens == 2


def test_too_long_message_is_refused(client):
    code, _ = code_of(client, client.request("x" * (2 << 20)))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert client.generate("Hi", max_tokens=2)[2].usage.output_tokens == 2


def test_bytes_that_are_no_request_are_invalid(client, server):
    """gRPC's own handlers answered UNIMPLEMENTED, without a word, to text that is not UTF-8."""
    service = "/tandem.gateway.v1.GatewayService/"
    raw = {"request_serializer": bytes, "response_deserializer": bytes}
    stream = client.channel.unary_stream(service + "Generate", **raw)
    unary = client.channel.unary_unary(service + "Tokenize", **raw)
    before = server.metric("tandem_requests_rejected_total", reason="invalid")
    for damaged in (b"\x12\x02\xff\xfe", b"\x12\x7f", b"\xff" * 9):
        for call in (lambda: list(stream(damaged)), lambda: unary(damaged)):
            with pytest.raises(grpc.RpcError) as error:
                call()
            assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert "UTF-8" in error.value.details()
    assert server.metric("tandem_requests_rejected_total", reason="invalid") == before + 6
    assert client.generate("Hi", max_tokens=2)[2].usage.output_tokens == 2


def test_odd_but_sound_requests_are_answered(client):
    context = client.stub.GetModel(client.pb.GetModelRequest()).context_length_tokens
    with pytest.raises(grpc.RpcError) as error:
        client.run(client.request(token_ids=[5] * context))
    assert "PROMPT_TOO_LONG" in str(error.value.trailing_metadata())
    for request in (client.request(token_ids=[5]), client.request("a\0b"),
                    client.request("Hi", seed=2**64 - 1, temperature=1.0),
                    client.request("Hi", top_k=2**31 - 1, temperature=100.0, seed=0)):
        request.stopping.max_tokens = 3
        request.stopping.ignore_eos = True
        assert client.run(request)[2].usage.output_tokens == 3
    # Fields of a later version are ignored.
    later = client.request("Hi", max_tokens=3).SerializeToString() + b"\xfa\x3f\x01x"
    stream = client.channel.unary_stream("/tandem.gateway.v1.GatewayService/Generate",
                                         request_serializer=bytes,
                                         response_deserializer=client.pb.GenerateResponse.FromString)
    assert list(stream(later))[-1].finished.usage.output_tokens == 3


def test_unknown_model_is_not_found(client):
    request = client.request("Hi")
    request.model = "no-such-model"
    assert code_of(client, request)[0] == grpc.StatusCode.NOT_FOUND


def test_all_tokens_banned_is_an_error_not_a_crash(client):
    pb = client.pb
    request = client.request("Hi", max_tokens=4)
    for token in range(1024):
        request.sampling.logit_bias[token] = -100
    assert client.run(request)[2].usage.output_tokens == 4
    assert all(token >= 1024 for token in client.run(request)[1])
    assert client.stub.GetModel(pb.GetModelRequest()).limits.max_logit_bias_entries == 1024


def test_health_and_reflection(client):
    health = health_pb2_grpc.HealthStub(client.channel)
    for service in ("", "tandem.gateway.v1.GatewayService"):
        response = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert response.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as error:
        health.Check(health_pb2.HealthCheckRequest(service="unknown"))
    assert error.value.code() == grpc.StatusCode.NOT_FOUND
    reflection = reflection_pb2_grpc.ServerReflectionStub(client.channel)
    reply = next(reflection.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])))
    names = {service.name for service in reply.list_services_response.service}
    assert "tandem.gateway.v1.GatewayService" in names
