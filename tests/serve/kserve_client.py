"""Asks by KServe's Python SDK, over REST and gRPC; runs where `kserve` is installed, not here.

    python kserve_client.py HTTP_ADDRESS GRPC_ADDRESS MODEL IMAGES.npy SCORES.npy

Writes the scores of all ways in, stacked.
"""

import asyncio
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def ask(http, grpc, model, images):
    answers = []

    def request(protocol, is_binary):
        image = InferInput("image", list(images.shape), "FP32")
        image.set_data_from_numpy(images, binary_data=is_binary)
        return InferRequest(model, [image], request_id=protocol)

    rest = InferenceRESTClient(RESTConfig(protocol="v2", timeout=30))
    url = f"http://{http}"
    assert await rest.is_server_live(url) and await rest.is_server_ready(url)
    assert await rest.is_model_ready(url, model)
    for is_binary in (True, False):
        answer = await rest.infer(url, request("rest", is_binary), model_name=model)
        assert answer.model_name == model and answer.id == "rest"
        answers.append(answer.outputs[0].as_numpy())
    async with InferenceGRPCClient(grpc, timeout=30) as client:
        assert await client.is_server_live() and await client.is_server_ready()
        assert await client.is_model_ready(model)
        for is_raw in (True, False):
            answer = await client.infer(request("grpc", is_raw))
            assert answer.model_name == model and answer.id == "grpc"
            answers.append(answer.outputs[0].as_numpy())
    return np.stack(answers)


if __name__ == "__main__":
    http, grpc, model, images, scores = sys.argv[1:]
    np.save(scores, asyncio.run(ask(http, grpc, model, np.load(images))))
