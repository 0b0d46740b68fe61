"""The peer: the same network in PyTorch, trained and evaluated as people do it there."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.ours import MEAN, STD

LAYOUTS = {"default": torch.contiguous_format, "channels_last": torch.channels_last}
FORMS: dict[str, dict[str, Any]] = {
    "PyTorch": {"layout": "default"},
    "PyTorch channels_last": {"layout": "channels_last"},
    "PyTorch channels_last, compiled": {"layout": "channels_last", "compiled": True},
}


class TorchCNN(torch.nn.Module):
    """The same network as `mnist_cnn_v1`, as pytorch/examples writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 32, 3)
        self.conv2 = torch.nn.Conv2d(32, 64, 3)
        self.dropout1 = torch.nn.Dropout(0.25)
        self.dense1 = torch.nn.Linear(9216, 128)
        self.dropout2 = torch.nn.Dropout(0.5)
        self.dense2 = torch.nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images, `[batch, 1, 28, 28]`, to logits."""
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        x = self.dropout1(torch.nn.functional.max_pool2d(x, 2))
        x = self.dropout2(torch.relu(self.dense1(torch.flatten(x, 1))))
        return self.dense2(x)


def device() -> torch.device:
    """Returns the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    """Waits for a GPU; a CPU is done already."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def make_training(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int,
    layout: str,
    compiled: bool = False,
    bfloat16: bool = False,
) -> Callable[[], None]:
    """Builds an epoch of training, with all data on the device and Adam's fastest form."""
    torch.manual_seed(0)
    memory_format, place = LAYOUTS[layout], device()
    network = TorchCNN().to(place, memory_format=memory_format)
    forward = torch.compile(network) if compiled else network
    fused = place.type == "cuda"  # on a CPU, Adam's loop over tensors is at least as fast
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, fused=fused)
    pixels = torch.tensor(images, device=place)[:, None]
    truth = torch.tensor(labels, dtype=torch.long, device=place)

    def run() -> None:
        order = torch.randperm(len(truth), device=place)
        for chosen in order[: len(order) // batch_size * batch_size].split(batch_size):
            batch = (pixels[chosen].float() / 255 - MEAN) / STD
            optimizer.zero_grad()
            with torch.autocast(place.type, torch.bfloat16, enabled=bfloat16):
                logits = forward(batch.contiguous(memory_format=memory_format))
                loss = torch.nn.functional.cross_entropy(logits, truth[chosen])
            loss.backward()
            optimizer.step()
        wait()

    return run


def make_training_from_loader(
    images: np.ndarray, labels: np.ndarray, *, batch_size: int, num_workers: int
) -> Callable[[], None]:
    """Builds an epoch as it is commonly written: a DataLoader brings the batches from the host."""
    torch.manual_seed(0)
    place = device()
    network = TorchCNN().to(place)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    pixels = (torch.tensor(images)[:, None].float() / 255 - MEAN) / STD
    loader = DataLoader(
        TensorDataset(pixels, torch.tensor(labels, dtype=torch.long)),
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=num_workers,
        pin_memory=place.type == "cuda",
        persistent_workers=num_workers > 0,
        multiprocessing_context="spawn" if num_workers else None,  # JAX's threads bear no fork
    )

    def run() -> None:
        for batch, truth in loader:
            optimizer.zero_grad()
            logits = network(batch.to(place, non_blocking=True))
            loss = torch.nn.functional.cross_entropy(logits, truth.to(place, non_blocking=True))
            loss.backward()
            optimizer.step()
        wait()

    return run


def make_training_in_cuda_graphs(
    images: np.ndarray, labels: np.ndarray, *, batch_size: int
) -> Callable[[], None]:
    """Builds an epoch of which every step is one replay of a captured CUDA graph, in bfloat16."""
    if not torch.cuda.is_available():
        raise RuntimeError("needs a GPU")
    torch.manual_seed(0)
    network = TorchCNN().to("cuda", memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, capturable=True, fused=True)
    pixels = torch.tensor(images, device="cuda")[:, None]
    truth = torch.tensor(labels, dtype=torch.long, device="cuda")
    chosen = torch.arange(batch_size, device="cuda")

    def step() -> None:
        batch = (pixels[chosen].float() / 255 - MEAN) / STD
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            logits = network(batch.contiguous(memory_format=torch.channels_last))
            loss = torch.nn.functional.cross_entropy(logits, truth[chosen])
        loss.backward()
        optimizer.step()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # capture wants everything allocated
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def run() -> None:
        order = torch.randperm(len(truth), device="cuda")
        for batch in order[: len(order) // batch_size * batch_size].split(batch_size):
            chosen.copy_(batch)
            graph.replay()
        wait()

    return run


def make_evaluation(
    images: np.ndarray, *, batch_size: int, layout: str, compiled: bool = False
) -> Callable[[], np.ndarray]:
    """Builds the evaluation of all images: probabilities, as an array on the host."""
    memory_format, place = LAYOUTS[layout], device()
    network = TorchCNN().eval().to(place, memory_format=memory_format)
    # For its batch size alone: else it compiles for any from the second size of a process on.
    forward = torch.compile(network, dynamic=False) if compiled else network
    pixels = torch.tensor(images, device=place)[:, None]

    def run() -> np.ndarray:
        scores = []
        with torch.inference_mode():
            for part in pixels.split(batch_size):
                batch = ((part.float() / 255 - MEAN) / STD).contiguous(memory_format=memory_format)
                scores.append(torch.softmax(forward(batch), dim=1))
            return torch.cat(scores).cpu().numpy()

    return run


class Exported(torch.nn.Module):
    """What is exported: grey levels 0 to 1 in, probabilities out, as this project's file."""

    def __init__(self, network: TorchCNN) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Maps images, `[batch, 1, 28, 28]`, to probabilities."""
        return torch.softmax(self.network((image - MEAN) / STD), dim=1)


def with_weights(params: dict) -> TorchCNN:
    """Returns the network with the weights of our CNN, which lie with the inputs first."""
    network = TorchCNN().eval()
    with torch.no_grad():
        for name, layer in network.named_children():
            if name in params:
                kernel = np.asarray(params[name]["kernel"])
                axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
                layer.weight.copy_(torch.tensor(kernel.transpose(axes)))
                layer.bias.copy_(torch.tensor(np.asarray(params[name]["bias"])))
    return network
