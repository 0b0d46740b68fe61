"""What the stages after training hand on: the types of their JSON files, read and written here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict, cast

from mnist_jax.config import default
from mnist_jax.errors import UserError
from mnist_jax.files import read_json, write_json
from mnist_jax.run import paths
from mnist_jax.run.history import History

DEFAULTS: dict[str, Any] = default().to_dict()
Interval = list[float]  # low, high


class Criteria(NamedTuple):
    """What a release must reach."""

    min_test_accuracy: float = DEFAULTS["min_test_accuracy"]  # 0 to 1
    min_per_class_accuracy: float = DEFAULTS["min_per_class_accuracy"]  # 0 to 1
    max_model_size_mb: float = DEFAULTS["max_model_size_mb"]  # of 10^6 bytes, of the ONNX file
    max_inference_time_ms: float = DEFAULTS["max_inference_time_ms"]  # p90, of the ONNX file
    min_balanced_accuracy: float = DEFAULTS["min_balanced_accuracy"]  # 0 to 1; 0: not asked for
    min_macro_f1: float = DEFAULTS["min_macro_f1"]  # likewise
    min_auc: float = DEFAULTS["min_auc"]  # likewise

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Criteria":
        """Takes them from a configuration."""
        return cls(**{name: config[name] for name in cls._fields})


class Counts(TypedDict):
    """How many images of a set got the right answer."""

    num_examples: int
    num_correct: int
    accuracy: float  # 0 to 1


class ClassCounts(Counts):
    """The same of one class."""

    class_name: str


class Validation(TypedDict):
    """What the validation split said of the epoch that was kept."""

    epoch: int  # from 1
    accuracy: float
    loss: float
    num_examples: int


class ClassMeans(TypedDict):
    """Means over the classes, each counting alike; see `release.each_class`.

    None, and without an interval: a class has no image. Missing in runs of earlier versions.
    """

    balanced_accuracy: NotRequired[float | None]
    macro_f1: NotRequired[float | None]
    auc: NotRequired[float | None]
    intervals_95: NotRequired[dict[str, Interval]]


class Metrics(Counts, ClassMeans):
    """`metrics.json`: the test split, measured in JAX."""

    model_id: str  # of a network of the user's own: the name of its class, in lower case
    dataset_id: str
    criterion_id: str  # the loss that `loss` is
    outputs: NotRequired[str]  # missing in runs of earlier versions
    image_shape: NotRequired[list[int]]  # height, width, channels; as `outputs`
    split: Literal["test"]
    loss: float  # mean over the images
    expected_calibration_error: float  # 0 to 1
    calibration_bins: int
    class_names: list[str]
    per_class: list[ClassCounts]
    confusion_matrix: list[list[int]]  # true class by row, answer by column
    num_parameters: int
    validation: Validation | None  # None where a network was not trained here


class Check(TypedDict):
    """One check of an exported file."""

    name: str
    passed: bool
    detail: str


class FileFacts(TypedDict):
    """An exported file, as it was verified."""

    path: str  # in the run's folder
    sha256: str
    size_bytes: int
    opset: NotRequired[int | None]  # this and the rest: of the ONNX file
    ir_version: NotRequired[int]
    operators: NotRequired[dict[str, int]]
    metadata: NotRequired[dict[str, str]]


class Disagreement(TypedDict):
    """An image that a file puts into another class than JAX does."""

    index: int
    jax_class: int
    file_class: int
    margin: float | None  # between the two, by JAX's scores; None: not finite


class ParityRow(TypedDict):
    """A file's scores of some images against JAX's."""

    format: str
    optimization: str | None  # of ONNX Runtime
    inputs: str
    batch_size: int
    num_examples: int
    max_abs_difference: float | None  # None: not finite
    num_class_disagreements: int
    num_ties: int
    disagreements: list[Disagreement]  # the first of them
    num_correct: NotRequired[int]  # where there are labels
    num_correct_jax: NotRequired[int]


class Latency(TypedDict):
    """Single images on one thread of ONNX Runtime, in milliseconds."""

    batch_size: int
    threads: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    num_runs: int
    num_windows: int
    stable: bool
    load_ms: float
    first_call_ms: float
    cpu: str
    onnxruntime: str


class FileAccuracy(TypedDict):
    """What is right by JAX, and by the ONNX file; None without one."""

    jax: float
    onnx: float | None
    num_correct_jax: int
    num_correct_onnx: int | None
    num_examples: int


class Verification(TypedDict):
    """`verification.json`: the exported files against the network."""

    passed: bool
    failures: list[str]
    checks: list[Check]
    files: dict[str, FileFacts]  # by format
    parity: list[ParityRow]
    latency: Latency | None
    accuracy: FileAccuracy
    tolerance: float  # the largest difference of a score


class Criterion(TypedDict):
    """A measurement against what is asked of it."""

    name: str
    measured: float | bool | None  # None: not measured
    rule: str
    threshold: float | bool
    unit: str
    n: int | None
    interval_95: Interval | None
    detail: str
    passed: bool


class Training(TypedDict):
    """How the released weights were trained."""

    best_epoch: int
    num_epochs: int
    seconds: float
    images_per_s: float  # median over the epochs


class OwnCode(TypedDict):
    """A file of the user's own that a run stands on."""

    reference: str
    sha256: str


class Imported(TypedDict):
    """Weights that were trained elsewhere, in the file that they came in."""

    file: str  # its name
    sha256: str
    source: str
    licence: str
    input: dict[str, float | None]  # divisor of pixels 0 to 255, mean, std; None: not given
    tensors: dict[str, str]  # by our name, the file's
    has_decoder: bool


class Run(TypedDict):
    """`config.json`: what the run stands on."""

    config: dict[str, Any] | None  # None where a network was not trained here
    config_hash: str | None
    dataset: dict[str, Any]  # the fields of `data.Dataset` but its folder, as far as known
    environment: dict[str, Any]
    own_code: NotRequired[dict[str, OwnCode]]  # by key of the configuration
    imported: NotRequired[Imported]  # where the weights were trained elsewhere


class Release(TypedDict):
    """`release.json`: the verdict and what it stands on."""

    verdict: Literal["released", "refused"]
    reasons: list[str]
    criteria: list[Criterion]
    run: Run
    metrics: Metrics
    training: Training | None  # None where a network was not trained here
    verification: Verification | None  # None where nothing was exported
    seeds: NotRequired[dict[str, Any]]  # `seeds.json`, of a run with several


def _read(path: Path) -> dict[str, Any]:
    """Reads an object from JSON.

    Raises:
        UserError: the file is missing or damaged, or holds something else.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} is not what a run writes; it is damaged, run again")
    return value


def write_metrics(run_dir: Path, metrics: Metrics) -> None:
    """Writes `metrics.json`."""
    write_json(run_dir / paths.METRICS, metrics)


def read_history(run_dir: Path) -> History:
    """Reads `history.json`."""
    return cast(History, _read(run_dir / paths.HISTORY))


def write_verification(run_dir: Path, verification: Verification) -> None:
    """Writes `verification.json`."""
    write_json(run_dir / paths.VERIFICATION, verification)


def read_files(run_dir: Path) -> dict[str, FileFacts]:
    """Reads from `verification.json` what was exported; nothing where there is none."""
    path = run_dir / paths.VERIFICATION
    return _read(path)["files"] if path.is_file() else {}


def read_release(run_dir: Path) -> Release:
    """Reads `release.json`."""
    return cast(Release, _read(run_dir / paths.RELEASE))


def write_release(run_dir: Path, release: Release) -> None:
    """Writes `release.json`."""
    write_json(run_dir / paths.RELEASE, release)
