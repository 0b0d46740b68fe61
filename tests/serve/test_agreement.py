"""The Open Inference Protocol and Triton's extensions, asked alike over REST and gRPC."""

import http.client
import json

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.serve.raw import BODY, INFER


def over_rest(server, path, body=None, headers=()):
    connection = http.client.HTTPConnection(server.http, timeout=30)
    try:
        connection.request("GET" if body is None else "POST", path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


@pytest.fixture
def stub(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def question(values=0.0, **parameters):
    """A request for one image over gRPC, with parameters of its output."""
    asked = service_pb2.ModelInferRequest(model_name="digits")
    asked.inputs.add(name="image", datatype="FP32", shape=[1, 1, 28, 28])
    asked.raw_input_contents.append(np.full(784, values, np.float32).tobytes())
    output = asked.outputs.add(name="scores")
    for name, value in parameters.items():
        kind = "int64_param" if isinstance(value, int) else "string_param"
        setattr(output.parameters[name], kind, value)
    return asked


def refusal(stub, asked):
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(asked)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    return refused.value.details()


@pytest.mark.parametrize(
    "parameters", [{"classification": 3}, {"shared_memory_region": "r"}], ids=["classes", "memory"]
)
def test_extensions_that_change_the_answer_are_refused_in_the_same_words(server, stub, parameters):
    body = json.loads(BODY) | {"outputs": [{"name": "scores", "parameters": parameters}]}
    status, content, _ = over_rest(server, INFER, json.dumps(body))
    said = json.loads(content)["error"]
    assert status == 400 and next(iter(parameters)) in said
    assert refusal(stub, question(**parameters)) == said


def test_an_input_in_shared_memory_is_refused_in_the_same_words(server, stub):
    asked = question()
    asked.inputs[0].parameters["shared_memory_region"].string_param = "r"
    body = json.loads(BODY)
    body["inputs"][0]["parameters"] = {"shared_memory_region": "r"}
    status, content, _ = over_rest(server, INFER, json.dumps(body))
    assert status == 400 and refusal(stub, asked) == json.loads(content)["error"]


def test_null_is_as_good_as_absent(server):
    body = json.loads(BODY) | {"id": None, "parameters": None, "outputs": None}
    body["inputs"][0]["parameters"] = None
    assert over_rest(server, INFER, json.dumps(body))[0] == 200
    body["outputs"] = [{"name": "scores", "parameters": None}]
    assert over_rest(server, INFER, json.dumps(body))[0] == 200
    for key in ("classification", "binary_data"):
        body["outputs"] = [{"name": "scores", "parameters": {key: None}}]
        assert over_rest(server, INFER, json.dumps(body))[0] == 200
    body["inputs"][0]["parameters"] = {"binary_data_size": None}
    assert over_rest(server, INFER, json.dumps(body))[0] == 200
    body["inputs"] = None
    assert over_rest(server, INFER, json.dumps(body))[0] == 400


def test_a_rounding_error_is_clipped_and_more_is_told_apart(server, stub):
    level = np.float32(255) * np.float32(0.00392157)
    assert 1 < level < 1 + 1e-6
    found = [stub.ModelInfer(question(values)).raw_output_contents for values in (level, 1.0)]
    assert found[0] == found[1]
    for values, shown in ((1.00001, "1.00001"), (-0.00001, "-9.9")):
        body = json.loads(BODY)
        body["inputs"][0]["data"] = [float(np.float32(values))] * 784
        status, content, _ = over_rest(server, INFER, json.dumps(body))
        said = json.loads(content)["error"]
        assert status == 400 and shown in said and "from 1 to 1;" not in said
        assert refusal(stub, question(values)) == said


def test_server_metadata_is_at_both_paths(server):
    assert over_rest(server, "/v2")[:2] == over_rest(server, "/v2/")[:2]
    assert json.loads(over_rest(server, "/v2/")[1])["name"] == "mnist_jax"


def test_a_model_that_is_not_there_is_not_ready(server, stub):
    for name, version, is_ready in (("digits", "", True), ("digits", "9", False), ("x", "", False)):
        asked = service_pb2.ModelReadyRequest(name=name, version=version)
        assert stub.ModelReady(asked).ready == is_ready
        path = f"/v2/models/{name}" + (f"/versions/{version}" if version else "")
        assert (over_rest(server, f"{path}/ready")[0] == 200) == is_ready


def test_metadata_gives_grpc_clients_the_labels(server, stub):
    """Read by a message that has the field, as the protocol's own `.proto` does."""
    facts = json.loads(over_rest(server, "/v2/models/digits")[1])
    assert json.loads(facts["properties"]["labels"]) == list("0123456789")
    answer = stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="digits"))
    assert answer.platform == facts["platform"] == "onnx_onnxv1"
    # properties = 6, each a message of key = 1 and value = 2.
    key, value = (f"{text}".encode() for text in ("labels", facts["properties"]["labels"]))
    pair = b"\x0a%c%s\x12%c%s" % (len(key), key, len(value), value)
    assert b"\x32%c%s" % (len(pair), pair) in answer.SerializeToString()


def test_kubernetes_probe_and_reflection_are_answered(server):
    with grpc.insecure_channel(server.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as refused:
            health.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=10)
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND
        ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        questions = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(
                file_containing_symbol="inference.GRPCInferenceService"
            ),
        ]
        listed, described = ask(iter(questions), timeout=10)
        names = {service.name for service in listed.list_services_response.service}
        assert names >= {"inference.GRPCInferenceService", "grpc.health.v1.Health"}
        (content, *_) = described.file_descriptor_response.file_descriptor_proto
        file = descriptor_pb2.FileDescriptorProto.FromString(content)
        assert "ModelInfer" in {method.name for method in file.service[0].method}


def test_statistics_count_alike_both_ways(server, stub):
    def counted():
        path = "/v2/models/digits/versions/2/stats"
        (found,) = json.loads(over_rest(server, path)[1])["model_stats"]
        asked = service_pb2.ModelStatisticsRequest(name="digits", version="2")
        (same,) = stub.ModelStatistics(asked).model_stats
        assert same.inference_count == found["inference_count"]
        assert same.inference_stats.success.ns == found["inference_stats"]["success"]["ns"]
        return found

    before = counted()
    asked = question()
    asked.model_version = "2"
    stub.ModelInfer(asked)
    assert over_rest(server, INFER.replace("/infer", "/versions/2/infer"), BODY)[0] == 200
    after = counted()
    assert after["inference_count"] == before["inference_count"] + 2
    for kind in ("success", "queue", "compute_infer"):
        done, was = (x["inference_stats"][kind] for x in (after, before))
        assert done["count"] == was["count"] + 2 and done["ns"] > was["ns"]
    assert after["last_inference"] > before["last_inference"] - 1
    every = json.loads(over_rest(server, "/v2/models/stats")[1])["model_stats"]
    assert [one["version"] for one in every] == ["1", "2"]
    assert len(stub.ModelStatistics(service_pb2.ModelStatisticsRequest()).model_stats) == 2
    assert over_rest(server, "/v2/models/digits/versions/9/stats")[0] == 404
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name="x"))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_pages_of_a_named_origin_may_ask_and_requests_are_logged(serve, repository, server):
    origin, header = "https://app.example", "access-control-allow-origin"
    assert header not in over_rest(server, "/v2", headers={"Origin": origin})[2]
    with serve(repository, f"--cors={origin}", "--access-log") as open_server:
        assert over_rest(open_server, "/v2", headers={"Origin": origin})[2][header] == origin
        other = over_rest(open_server, "/v2", headers={"Origin": "https://evil.example"})[2]
        assert header not in other
        with grpc.insecure_channel(open_server.grpc) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            stub.ServerLive(service_pb2.ServerLiveRequest())
        open_server.wait_for(r'"GET /v2 HTTP/1.1" 200')
        open_server.wait_for(r'"gRPC ServerLive" 200')
    assert "GET /v2" not in "".join(server.lines)
