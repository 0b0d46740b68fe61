"""What the server counts, in the form that Prometheus reads."""

import functools
from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

# Labels are names that the server itself has given out: a client cannot make new ones.
REQUESTS = Counter(
    "mnist_jax_requests_total", "Requests, by way in and by HTTP status", ["protocol", "status"]
)
REQUEST_SECONDS = Histogram(
    "mnist_jax_request_seconds", "From request to answer", ["protocol"], buckets=SECONDS
)
BATCH_IMAGES = Histogram(
    "mnist_jax_batch_images",
    "Images that were scored together",
    ["model", "version"],
    buckets=IMAGES,
)
BATCH_SECONDS = Histogram(
    "mnist_jax_batch_seconds",
    "What the model took for a batch",
    ["model", "version"],
    buckets=SECONDS,
)
LOOP_LAG = Histogram(
    "mnist_jax_loop_lag_seconds",
    "What ten times a second comes too late, because something holds up the event loop",
    buckets=SECONDS,
)
READY = Gauge("mnist_jax_version_ready", "1 where a version answers", ["model", "version"])


def make_batch_report(model: str, version: str) -> Callable[[int, float], None]:
    """Returns a function that counts one batch, given its images and seconds."""
    images = BATCH_IMAGES.labels(model, version)
    seconds = BATCH_SECONDS.labels(model, version)

    def report(num_images: int, num_seconds: float) -> None:
        images.observe(num_images)
        seconds.observe(num_seconds)

    return report


def count_request(protocol: str, status: int, num_seconds: float) -> None:
    """Counts one answered request; `status` as HTTP has it, over gRPC as well."""
    requests, seconds = _counted(protocol, status)
    requests.inc()
    seconds.observe(num_seconds)


@functools.cache  # to find them by their labels takes several times as long as to count
def _counted(protocol: str, status: int) -> tuple[Counter, Histogram]:
    return REQUESTS.labels(protocol, str(status)), REQUEST_SECONDS.labels(protocol)


def set_ready(index: list[dict[str, str]]) -> None:
    """Shows which versions answer; those that are gone are no longer shown."""
    READY.clear()
    for entry in index:
        READY.labels(entry["name"], entry["version"]).set(entry["state"] == "READY")
