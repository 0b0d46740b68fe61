"""Where everything lies in the folder of a run; the standard library alone."""

LOG = "pipeline.log"
CONFIG = "logs/config.json"
METRICS = "logs/metrics.json"
HISTORY = "logs/history.json"
SEEDS = "logs/seeds.json"  # of a run with several seeds
VERIFICATION = "logs/verification.json"
RELEASE = "logs/release.json"
DATA_REPORT = "logs/data_report.json"  # of the user's own pictures
ROBUSTNESS = "logs/robustness.json"
MISTAKES = "model_card/mistakes.csv"
RUNTIMES = "logs/runtimes.json"
QUANTIZED = "models/mnist_model.int8.onnx"
QUANTIZATION = "logs/quantization.json"
ROBUSTNESS_PLOT = "model_card/plots/robustness.png"
# What commands on a finished run add to it.
LATER = (ROBUSTNESS, ROBUSTNESS_PLOT, RUNTIMES, QUANTIZED, QUANTIZATION)
CAPSULES = "logs/capsules.npz"
TENSORBOARD = "logs/tensorboard"
RELEASED = "models/checkpoint"
TRAINING = "models/training"  # of an unfinished run
SPENT = "models/training.spent"  # on its way out
FOLDERS = ("logs", "models", "model_card", "model_card/plots")

# The exported files, by format; `orbax` is the checkpoint itself.
EXPORTED = {
    "orbax": RELEASED,
    "safetensors": "models/mnist_model.safetensors",
    "onnx": "models/mnist_model.onnx",
    "stablehlo": "models/mnist_model.stablehlo",
}
