"""What the tests of torch modules import by name: modules, and what is no module."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

import torch
from torch import nn

NUMBER = 5


class Small(nn.Module):
    """A convolutional network with batch norms that have learnt something, and a hard swish."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)  # the same weights in every process
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.Hardswish(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.ConvTranspose2d(8, 6, 2, stride=2),
            nn.BatchNorm2d(6),
        )
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, 10)
        for each in self.modules():
            if isinstance(each, nn.BatchNorm2d):
                each.running_mean = torch.randn(each.num_features)
                each.running_var = torch.rand(each.num_features) + 0.5
                nn.init.normal_(each.weight)
                nn.init.normal_(each.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.drop(self.body(x).mean((2, 3))))
        return scores


class Words(nn.Module):
    """Token ids and a mask: whole numbers both; a dict comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 16)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu")

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> Mapping[str, torch.Tensor]:
        hidden = self.layer(self.table(ids), src_key_padding_mask=mask == 0)
        return {"hidden": hidden, "pooled": hidden.mean(1)}


class OneOnly(nn.Module):
    """Takes a batch of one and no other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(1, 12) * 2.0


class Branching(nn.Module):
    """Goes another way for other values, which tracing does not see."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Branching.calls += 1
        return x * float(Branching.calls)


class NotForOnnx(nn.Module):
    """Uses an operator that ONNX does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = torch.linalg.eigvals(x).real
        return values


class Picky(nn.Module):
    """Wants its input as it is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ torch.ones(7, 3)


def small() -> nn.Module:
    """Build the network in training mode, and talk while doing so."""
    print("loading weights")  # noqa: T201 - what a user's code does must not matter
    return Small().train()


def half() -> nn.Module:
    return Small().half()


def fails() -> nn.Module:
    raise FileNotFoundError("weights.pt\nis not there")


def state() -> object:
    return Small().state_dict()


def crashes() -> nn.Module:
    os.kill(os.getpid(), signal.SIGSEGV)
    return Small()


instance = Small()
