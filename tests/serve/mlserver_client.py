"""Asks by MLServer's types, codecs and gRPC stubs; runs where `mlserver` is installed, not here.

    python mlserver_client.py HTTP_ADDRESS GRPC_ADDRESS MODEL IMAGES.npy SCORES.npy

Writes the scores of all ways in, stacked. Model metadata are asked for over REST only: field 6 of
that gRPC message is the protocol's `map<string, string> properties`, for which MLServer's own
`.proto` has parameters of another type.
"""

import sys
import urllib.request

import grpc
import numpy as np
from mlserver.codecs import NumpyCodec
from mlserver.grpc import converters
from mlserver.grpc.dataplane_pb2 import ModelReadyRequest, ServerReadyRequest
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse

http_address, grpc_address, model, images_file, scores_file = sys.argv[1:]
images = np.load(images_file)
answers = []


def make_request():
    """Makes one for each use: putting it into raw bytes takes the data out of it."""
    return InferenceRequest(id="7", inputs=[NumpyCodec.encode_input("image", images)])


base = f"http://{http_address}/v2/models/{model}"
with urllib.request.urlopen(base) as answer:
    facts = MetadataModelResponse.model_validate_json(answer.read())
assert (facts.inputs[0].name, facts.inputs[0].datatype) == ("image", "FP32")
body = make_request().model_dump_json().encode()
asked = urllib.request.Request(f"{base}/infer", body, {"Content-Type": "application/json"})
with urllib.request.urlopen(asked) as answer:
    answers.append(InferenceResponse.model_validate_json(answer.read()))

with grpc.insecure_channel(grpc_address) as channel:
    stub = GRPCInferenceServiceStub(channel)
    assert stub.ServerReady(ServerReadyRequest()).ready
    assert stub.ModelReady(ModelReadyRequest(name=model)).ready
    for use_raw in (True, False):
        message = converters.ModelInferRequestConverter.from_types(
            make_request(), model_name=model, use_raw=use_raw
        )
        found = stub.ModelInfer(message)
        answers.append(converters.ModelInferResponseConverter.to_types(found))

assert all(answer.id == "7" and answer.model_name == model for answer in answers)
np.save(scores_file, np.stack([NumpyCodec.decode_output(answer.outputs[0]) for answer in answers]))
