"""What an exported ONNX file promises: names, versions, formats; without JAX."""

OPSET = 17
IR_VERSION = 8  # with opset 17: loads on ONNX Runtime 1.16 and newer
INPUT_NAME, OUTPUT_NAME, BATCH_NAME = "image", "scores", "batch"

FORMATS = ("orbax", "safetensors", "onnx", "stablehlo")
