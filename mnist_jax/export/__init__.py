"""The formats that a trained network leaves this program in, and where each file goes in a run.

`onnx`, `safetensors` and `stablehlo` have a module each; `orbax` is the checkpoint itself.
"""

FORMATS = ("orbax", "safetensors", "onnx", "stablehlo")

PATHS = {
    "orbax": "models/checkpoint",
    "safetensors": "models/mnist_model.safetensors",
    "onnx": "models/mnist_model.onnx",
    "stablehlo": "models/mnist_model.stablehlo",
}
