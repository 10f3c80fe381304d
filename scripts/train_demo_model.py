# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "onnx", "onnxruntime", "torch"]
# ///
"""Train the demo model and cut its data: everything in ``src/edgewise/demo`` that is binary.

    python scripts/train_demo_model.py --out src/edgewise/demo

Reads the four idx files of Fashion-MNIST as the Debian package ``dataset-fashion-mnist``
installs them. One thread, one seed: the same versions on the same kind of processor give the
same files. The accuracy it prints is that of the exported ONNX file, not of the network in memory.
"""

import argparse
import gzip
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import Tensor, nn

Pixels: TypeAlias = npt.NDArray[np.uint8]
Labels: TypeAlias = npt.NDArray[np.int64]

CLASSES = 10
SIDE = 28
CALIBRATE_IMAGES = 400
TEST_IMAGES = 1000


class Split(NamedTuple):
    """Images `[n, 1, 28, 28]` of raw 0..255 pixels, and their classes `[n]`."""

    x: Pixels
    y: Labels

    def take(self, index: npt.NDArray[np.int64]) -> Self:
        """Return the images at `index`, in that order."""
        return type(self)(self.x[index], self.y[index])


def read_idx(path: Path) -> Pixels:
    """Read one gzipped idx file of unsigned bytes, of any rank."""
    raw = gzip.decompress(path.read_bytes())
    unsigned_bytes = b"\x00\x00\x08"
    if raw[:3] != unsigned_bytes:
        message = f"{path} starts with {raw[:3]!r}; an idx file of bytes starts with {unsigned_bytes!r}"
        raise ValueError(message)
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", count=rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape.tolist())


def read_split(folder: Path, prefix: str) -> Split:
    """Read the images and labels that start with `prefix` (`train` or `t10k`)."""
    x = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz").reshape(-1, 1, SIDE, SIDE)
    return Split(x, read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz").astype(np.int64))


def stratified(labels: Labels, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw `count` indices without replacement, the same number of each class, shuffled."""
    each = count // CLASSES
    drawn = [rng.choice(np.flatnonzero(labels == c), each, replace=False) for c in range(CLASSES)]
    return rng.permutation(np.concatenate(drawn)).astype(np.int64)


class SqueezeExcite(nn.Module):
    """Scale every channel by a gate in 0..1 that is computed from all channel means."""

    def __init__(self, channels: int) -> None:
        """Squeeze to a quarter of `channels`."""
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 4, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Gate `x` `[n, c, h, w]`."""
        gated: Tensor = x * self.gate(x)
        return gated


def conv_norm(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution that keeps the image size (but for its stride), and its BatchNorm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class InvertedResidual(nn.Module):
    """Expand, filter each channel on its own, gate, project.

    The block of MobileNetV3: arXiv:1905.02244, figure 4.
    """

    def __init__(
        self,
        inputs: int,
        expanded: int,
        outputs: int,
        stride: int,
        activation: Callable[[], nn.Module],
        *,
        squeeze: bool,
    ) -> None:
        """Skip the expansion where it would not expand, and the residual where shapes differ."""
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        layers: list[nn.Module] = []
        if expanded != inputs:
            layers += [*conv_norm(inputs, expanded), activation()]
        layers += [*conv_norm(expanded, expanded, 3, stride, groups=expanded), activation()]
        if squeeze:
            layers.append(SqueezeExcite(expanded))
        layers += conv_norm(expanded, outputs)
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[n, inputs, h, w]` to `[n, outputs, h / stride, w / stride]`."""
        y: Tensor = self.body(x)
        return x + y if self.residual else y


class DemoNet(nn.Module):
    """A small MobileNetV3 for 28x28 grey images.

    As there, the large early maps use ReLU and the small late ones hard-swish and
    squeeze-excite. Pixels go in raw, 0..255: the first convolution has no bias, so the BatchNorm
    after it takes out their scale, and after folding the graph has no node left for that.
    """

    def __init__(self) -> None:
        """Build the layers; initial weights come from torch's global generator."""
        super().__init__()
        self.layers = nn.Sequential(
            *conv_norm(1, 32, 3, 2),
            nn.Hardswish(),
            #                in  expand out stride
            InvertedResidual(32, 32, 64, 1, nn.ReLU, squeeze=False),
            InvertedResidual(64, 128, 64, 1, nn.ReLU, squeeze=False),
            InvertedResidual(64, 128, 64, 1, nn.ReLU, squeeze=False),
            InvertedResidual(64, 128, 96, 2, nn.Hardswish, squeeze=True),
            InvertedResidual(96, 192, 96, 1, nn.Hardswish, squeeze=True),
            *conv_norm(96, 192),
            nn.Hardswish(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(192, CLASSES),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map raw pixels `[n, 1, 28, 28]` to logits `[n, 10]`."""
        logits: Tensor = self.layers(image)
        return logits


def augment(x: Tensor, max_shift: int = 2, erase_share: float = 0.3) -> Tensor:
    """Mirror, shift and partly erase each image of a batch of bytes; return float32 pixels.

    Done by index arithmetic on the whole batch: image by image it would cost more than training.
    """
    n = len(x)
    steps = torch.arange(SIDE)
    padded = nn.functional.pad(x[:, 0], [max_shift] * 4)
    mirrored = torch.rand(n, 1) < 0.5
    rows = steps + torch.randint(0, 2 * max_shift + 1, (n, 1))
    columns = torch.where(mirrored, SIDE - 1 - steps, steps)
    columns = columns + torch.randint(0, 2 * max_shift + 1, (n, 1))
    moved = padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]].float()

    def band() -> Tensor:
        start, length = torch.randint(0, SIDE - 4, (n, 1)), torch.randint(4, SIDE // 2, (n, 1))
        return (steps >= start) & (steps < start + length)

    erased = band()[:, :, None] & band()[:, None, :] & (torch.rand(n, 1, 1) < erase_share)
    return moved.masked_fill(erased, 0.0)[:, None]


def train(split: Split, epochs: int, batch: int, peak_rate: float) -> DemoNet:
    """Train from scratch: AdamW, a short linear warm-up, then a cosine down to zero."""
    # On a CPU, channels last is the layout its convolutions are fastest in.
    # (torch's own annotations of `Module.to` leave `memory_format` out.)
    net: DemoNet = DemoNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x, y = torch.from_numpy(split.x), torch.from_numpy(split.y)
    batches = len(x) // batch
    # Decaying the scales and shifts of BatchNorm and the biases only slows learning down.
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=peak_rate,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak_rate, total_steps=epochs * batches, pct_start=0.15, cycle_momentum=False
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    began = time.monotonic()
    for epoch in range(epochs):
        order = torch.randperm(len(x))[: batches * batch].view(batches, batch)
        total = 0.0
        for index in order:
            images = augment(x[index]).to(memory_format=torch.channels_last)
            loss = loss_of(net(images), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds = time.monotonic() - began
        print(f"epoch {epoch + 1:2}  loss {total / batches:.4f}  {seconds:5.0f} s", flush=True)
    return net


def export(net: DemoNet, path: Path) -> None:
    """Write the network as ONNX, any batch size, BatchNorm folded into the convolutions."""
    net.eval()
    with warnings.catch_warnings():
        # The exporter without dynamo is announced as old; it is the one that keeps HardSwish whole.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            net,
            (torch.zeros(1, 1, SIDE, SIDE),),
            str(path),
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )


def accuracy(model: Path, split: Split) -> float:
    """Return the share of images that the ONNX file puts in the right class."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    right = 0
    for start in range(0, len(split.x), 500):
        images = split.x[start : start + 500].astype(np.float32)
        (logits,) = session.run(["logits"], {"image": images})
        right += int((np.asarray(logits).argmax(1) == split.y[start : start + 500]).sum())
    return right / len(split.x)


def main() -> None:
    """Train, export, cut the data, and print what was made."""
    parser = argparse.ArgumentParser(description="Train the demo model and cut its data.")
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--out", type=Path, default=Path("src/edgewise/demo"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=4e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)

    train_split, test_split = read_split(args.data, "train"), read_split(args.data, "t10k")
    chosen = stratified(train_split.y, CALIBRATE_IMAGES, rng)
    calibrate = train_split.take(chosen)
    test = test_split.take(stratified(test_split.y, TEST_IMAGES, rng))
    # The calibration images are kept from the training, so their labels can judge a recipe too.
    rest = train_split.take(np.setdiff1d(np.arange(len(train_split.y)), chosen))

    args.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out / "calibrate.npz", x=calibrate.x, y=calibrate.y)
    np.savez_compressed(args.out / "test.npz", x=test.x, y=test.y)
    net = train(rest, args.epochs, args.batch, args.rate)
    model = args.out / "model.onnx"
    export(net, model)

    print(f"parameters           {sum(p.numel() for p in net.parameters())}")
    for name, split in (("calibrate", calibrate), ("test", test), ("all test", test_split)):
        print(f"accuracy {name:11} {accuracy(model, split):.4f}  ({len(split.y)} images)")
    for file in (model, args.out / "calibrate.npz", args.out / "test.npz"):
        print(f"{file.name:20} {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
