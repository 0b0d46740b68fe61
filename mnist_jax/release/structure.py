"""What an ONNX file is, without running it: interface, versions, operators, weights."""

from collections import Counter
from typing import TypedDict

import numpy as np
import onnx
from onnx import TensorProto, helper

from mnist_jax.export.interface import BATCH_NAME, INPUT_NAME, IR_VERSION, OPSET, OUTPUT_NAME
from mnist_jax.release.report import Report

# Plain ONNX, which every runtime has. Left out on purpose: Dropout and all that is random, loops
# and branches.
# fmt: off
ALLOWED_OPERATORS = frozenset((
    "Conv", "Gemm", "MatMul", "Einsum", "BatchNormalization", "LayerNormalization",
    "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool",
    "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Erf", "Softplus", "Softmax",
    "Add", "Sub", "Mul", "Div", "Neg", "Abs", "Sqrt", "Reciprocal", "Pow", "Exp", "Log",
    "Max", "Min", "Clip", "ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceMean", "ReduceMax",
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Split", "Slice", "Pad", "Expand",
    "Shape", "Gather", "ConstantOfShape", "Cast", "Equal", "Greater", "Less", "Where", "Transpose",
))
# fmt: on


class OnnxFacts(TypedDict):
    """What an ONNX file says of itself."""

    opset: int | None
    ir_version: int
    operators: dict[str, int]
    metadata: dict[str, str]


def check_structure(
    report: Report, data: bytes, image_shape: tuple[int, int, int], num_classes: int
) -> OnnxFacts:
    """Checks an ONNX file without running it; returns what it says of itself."""
    with report.check("onnx: checker", "full"):
        onnx.checker.check_model(data, full_check=True)
    proto = onnx.ModelProto()
    with report.check("onnx: shape inference", "strict"):
        proto = onnx.load_model_from_string(data)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    graph = proto.graph
    height, width, channels = image_shape
    shape = [BATCH_NAME, channels, height, width]
    expected = [
        helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, shape),
        helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, [BATCH_NAME, num_classes]),
    ]
    declared = [*graph.input, *graph.output]
    rule = " to ".join(map(helper.printable_value_info, expected))
    with report.check("onnx: interface", rule) as problems:
        if declared != expected:
            found = " to ".join(map(helper.printable_value_info, declared))
            problems.append(f"{found} is not {rule}")
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    rule = f"opset {OPSET}, IR version {IR_VERSION}"
    with report.check("onnx: versions", rule) as problems:
        if opsets != {"": OPSET} or proto.ir_version != IR_VERSION:
            problems.append(f"opsets {opsets}, IR version {proto.ir_version} are not {rule}")
    operators = Counter(f"{node.domain} {node.op_type}".strip() for node in graph.node)
    with report.check("onnx: operators", ", ".join(sorted(operators))) as problems:
        problems += [f"{name} is not allowed" for name in sorted({*operators} - ALLOWED_OPERATORS)]
    with report.check("onnx: weights", "in the file, finite") as problems:
        for tensor in graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                problems.append(f"{tensor.name} is stored outside the file")
            elif not np.isfinite(onnx.numpy_helper.to_array(tensor)).all():
                problems.append(f"{tensor.name} is not finite")
    return {
        "opset": opsets.get(""),
        "ir_version": proto.ir_version,
        "operators": dict(operators),
        "metadata": {entry.key: entry.value for entry in proto.metadata_props},
    }
