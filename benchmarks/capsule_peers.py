"""The peers of the capsule networks: the same networks in PyTorch, as its public ports write them.

Layers are `torch.nn`'s, votes and routing are `einsum` and broadcasting, the loss and the decoder
those of the papers. Each is trained and evaluated with all data in memory, without augmentation.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers import LAYOUTS

CLASSES = 10


def squash(x: torch.Tensor) -> torch.Tensor:
    """Sabour et al. 2017, equation 1."""
    n = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x * (n / (1 + n * n))


def squash_exponential(x: torch.Tensor) -> torch.Tensor:
    """Efficient-CapsNet's squash."""
    n = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return (1 - torch.exp(-n)) * x / (n + 1e-7)


def margin_loss(capsules: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Sabour et al. 2017, equation 4; the mean over the batch."""
    length = torch.linalg.vector_norm(capsules, dim=-1)
    present = functional.one_hot(truth, CLASSES).float()
    too_short = present * torch.relu(0.9 - length) ** 2
    too_long = 0.5 * (1 - present) * torch.relu(length - 0.1) ** 2
    return (too_short + too_long).sum(dim=1).mean()


class Decoder(nn.Module):
    """Sabour et al. 2017, figure 2."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (CLASSES * 16, 512, 1024, 784)
        self.layers = nn.ModuleList(map(nn.Linear, sizes[:-1], sizes[1:]))

    def forward(self, capsules: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Maps the class capsules, all but the label's put to zero, to pixels."""
        mask = functional.one_hot(truth, CLASSES).float()
        x = (capsules * mask[:, :, None]).flatten(1)
        x = torch.relu(self.layers[0](x))
        x = torch.relu(self.layers[1](x))
        return torch.sigmoid(self.layers[2](x))


class TorchSabour(nn.Module):
    """`mnist_capsule_v1`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 256, 9)
        self.primary = nn.Conv2d(256, 256, 9, stride=2)
        self.weights = nn.Parameter(0.1 * torch.randn(1152, CLASSES, 16, 8))
        self.biases = nn.Parameter(torch.full((CLASSES, 16), 0.1))
        self.decoder = Decoder()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images, `[batch, 1, 28, 28]`, to class capsules."""
        x = self.primary(torch.relu(self.conv1(x)))
        x = x.reshape(-1, 32, 8, 36).permute(0, 1, 3, 2).reshape(-1, 1152, 8)
        votes = torch.einsum("ijdk,bik->bijd", self.weights, squash(x))
        logits = torch.zeros(votes.shape[:3], device=votes.device)
        for iteration in range(3):
            couplings = torch.softmax(logits, dim=2)
            capsules = squash((couplings[..., None] * votes).sum(dim=1) + self.biases)
            if iteration < 2:
                logits = logits + (votes * capsules[:, None]).sum(dim=-1)
        return capsules

    def loss(self, x: torch.Tensor, images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The margin loss and the drawing's error."""
        error = ((self.decoder(x, truth) - images.flatten(1)) ** 2).sum(dim=1).mean()
        return margin_loss(x, truth) + 0.0005 * error

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """The lengths of the class capsules."""
        return torch.linalg.vector_norm(x, dim=-1)


class TorchEfficient(nn.Module):
    """`mnist_efficient_capsule_v1`."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((1, 32, 5, 1), (32, 64, 3, 1), (64, 64, 3, 1), (64, 128, 3, 2))
        self.convs = nn.ModuleList(nn.Conv2d(*size) for size in sizes)
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(size[1], eps=1e-3, momentum=0.01) for size in sizes
        )
        self.primary = nn.Conv2d(128, 128, 9, groups=128)
        self.weights = nn.Parameter(0.1 * torch.randn(CLASSES, 16, 8, 16))
        self.biases = nn.Parameter(torch.zeros(CLASSES, 16, 1))
        self.decoder = Decoder()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images, `[batch, 1, 28, 28]`, to class capsules."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(torch.relu(conv(x)))
        x = squash_exponential(self.primary(x).reshape(-1, 16, 8))
        votes = torch.einsum("bik,jikd->bjid", x, self.weights)
        resemblance = torch.einsum("bjid,bjkd->bjik", votes, votes)
        couplings = torch.softmax(resemblance.sum(dim=-1, keepdim=True) / 4, dim=1)
        return squash_exponential(((couplings + self.biases) * votes).sum(dim=2))

    loss = TorchSabour.loss
    scores = TorchSabour.scores


class TorchHVC(nn.Module):
    """`mnist_hvc_capsule_v1`."""

    def __init__(self) -> None:
        super().__init__()
        filters = [32 + 16 * index for index in range(9)]

        def norm(kind: type[nn.Module], size: int) -> nn.Module:
            return kind(size, eps=1e-3, momentum=0.01)

        self.convs = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 3, bias=False)
            for inputs, outputs in zip([1, *filters], filters, strict=False)
        )
        self.norms = nn.ModuleList(norm(nn.BatchNorm2d, size) for size in filters)
        self.weights = nn.ParameterList(
            0.05 * torch.randn(CLASSES, (28 - 6 * branch) ** 2, 32 + 16 * (3 * branch - 1))
            for branch in (1, 2, 3)
        )
        self.branch_norms = nn.ModuleList(norm(nn.BatchNorm1d, size) for size in filters[2::3])
        self.merge_norm = norm(nn.BatchNorm1d, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images, `[batch, 1, 28, 28]`, to logits."""
        x, lengths = 2 * x - 1, []
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = torch.relu(norm(conv(x)))
            if index % 3 == 2:
                branch = index // 3
                places = x.flatten(2).transpose(1, 2)
                capsules = torch.einsum("bpd,jpd->bdj", places, self.weights[branch])
                capsules = torch.relu(self.branch_norms[branch](capsules))
                lengths.append(torch.linalg.vector_norm(capsules, dim=1))
        return self.merge_norm(torch.stack(lengths, dim=1)).sum(dim=1)

    def loss(self, x: torch.Tensor, images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The negative log-likelihood."""
        return functional.cross_entropy(x, truth)

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """The probability of each class."""
        return torch.softmax(x, dim=1)


NETWORKS = {
    "mnist_capsule_v1": TorchSabour,
    "mnist_efficient_capsule_v1": TorchEfficient,
    "mnist_hvc_capsule_v1": TorchHVC,
}


def make_training(
    model_id: str,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int,
    layout: str,
    compiled: bool = False,
) -> Callable[[], None]:
    """Builds an epoch of training with Adam, all data in memory."""
    torch.manual_seed(0)
    memory_format = LAYOUTS[layout]
    network = NETWORKS[model_id]().to(memory_format=memory_format)
    forward = torch.compile(network) if compiled else network
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    pixels = torch.tensor(images)[:, None]
    truth = torch.tensor(labels, dtype=torch.long)

    def run() -> None:
        order = torch.randperm(len(truth))
        for chosen in order[: len(order) // batch_size * batch_size].split(batch_size):
            batch = (pixels[chosen].float() / 255).contiguous(memory_format=memory_format)
            optimizer.zero_grad()
            network.loss(forward(batch), batch, truth[chosen]).backward()
            optimizer.step()

    return run


def make_evaluation(
    model_id: str, images: np.ndarray, *, batch_size: int, layout: str, compiled: bool = False
) -> Callable[[], np.ndarray]:
    """Builds the evaluation of all images: scores, as an array on the host."""
    memory_format = LAYOUTS[layout]
    network = NETWORKS[model_id]().eval().to(memory_format=memory_format)
    # For its batch size alone: else it compiles for any from the second size of a process on.
    forward = torch.compile(network, dynamic=False) if compiled else network
    pixels = torch.tensor(images)[:, None]

    def run() -> np.ndarray:
        with torch.inference_mode():
            parts = [
                network.scores(forward(part.contiguous(memory_format=memory_format)))
                for part in map(partial(torch.mul, other=1 / 255), pixels.split(batch_size))
            ]
            return torch.cat(parts).numpy()

    return run
