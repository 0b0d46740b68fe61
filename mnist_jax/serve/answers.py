"""The Open Inference Protocol v2: answers written, in JSON, bytes or gRPC messages."""

from typing import Any

import numpy as np
import orjson
from google.protobuf.message import Message
from jaxtyping import Float

from mnist_jax.export.interface import OUTPUT_NAME
from mnist_jax.serve.protocol import (
    DATATYPE,
    HEADER_LENGTH,
    STORED,
    Request,
    messages,
)


def write_rest(
    request: Request, name: str, version: str, scores: Float[np.ndarray, "batch classes"]
) -> tuple[bytes, dict[str, str]]:
    """Returns an answer's body and headers, in JSON or, where the client asked so, with bytes."""
    output: dict[str, Any] = {"name": OUTPUT_NAME, "datatype": DATATYPE, "shape": scores.shape}
    answer = {"model_name": name, "model_version": version, "outputs": [output]}
    if request.id:
        answer["id"] = request.id
    if not request.is_output_binary:
        output["data"] = scores.ravel()
        body = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
        return body, {"content-type": "application/json"}
    data = scores.astype(STORED).tobytes()
    output["parameters"] = {"binary_data_size": len(data)}
    header = orjson.dumps(answer)
    return header + data, {
        "content-type": "application/octet-stream",
        HEADER_LENGTH: str(len(header)),
    }


def write_grpc(
    request: Request, name: str, version: str, scores: Float[np.ndarray, "batch classes"]
) -> Message:
    """Returns an answer, a `ModelInferResponse`, with the scores as bytes."""
    answer = messages.ModelInferResponse(model_name=name, model_version=version, id=request.id)
    answer.outputs.add(name=OUTPUT_NAME, datatype=DATATYPE, shape=scores.shape)
    answer.raw_output_contents.append(scores.astype(STORED).tobytes())
    return answer
