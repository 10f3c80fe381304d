"""Sizes of deltas between two versions of a model, each way of making them beside the others.

    .venv/bin/python benchmarks/deltas.py

Trains the demo's network on the packaged images, changes it twice (its last layer only; all of it, as a fine-tune),
quantizes all three with the product, seals them, and measures the updates from the first to each of the others.

bsdiff4 is the Python package of that name. "zstd patch" is `zstd --patch-from`: zstandard at level 19 with the old
file as raw dictionary, long-distance matching and a window over both; it is also one of edgewise's own candidates.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import bsdiff4

from edgewise.bundle.delta import Method
from edgewise.bundle.delta_make import candidates, compressed, make_delta
from edgewise.contracts.budget import Budget
from edgewise.contracts.project import Effort, ModelConfig, Project, SearchConfig
from edgewise.contracts.task import TaskConfig, TaskKind
from edgewise.demo import demo_folder
from edgewise.forge.optimize import optimize
from edgewise.forge.seal.sealing import Label, seal
from edgewise.keys.pair import generate, signer_of
from train_demo_model import DemoNet, Split, export, train

SEED = 0
EPOCHS, BATCH, RATE = 12, 50, 3e-3
STEPS, TUNE_RATE = 60, 1e-4


def split(name: str) -> Split:
    """Return one of the demo's packaged splits."""
    with np.load(demo_folder() / f"{name}.npz") as arrays:
        return Split(arrays["x"].astype(np.uint8).reshape(-1, 1, 28, 28), arrays["y"].astype(np.int64))


def tune(net: DemoNet, data: Split, *, head_only: bool) -> None:
    """Train on other images: all weights, or those of the last layer; running statistics stay."""
    net.eval()
    parameters = list(net.layers[-1].parameters() if head_only else net.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=TUNE_RATE)
    x, y = torch.from_numpy(data.x).float(), torch.from_numpy(data.y)
    loss_of = nn.CrossEntropyLoss()
    for _ in range(STEPS):
        index = torch.randint(0, len(x), (BATCH,))
        loss = loss_of(net(x[index]), y[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def sealed(model: Path, work: Path, version: str, *, fallback: bool) -> bytes:
    """Quantize a model with the product (once) and return it sealed."""
    run = work / f"run-{model.stem}"
    if not run.exists():
        project = Project(
            model=ModelConfig(path=str(model), inputs={"image": (1, 1, 28, 28)}),
            task=TaskConfig(
                kind=TaskKind.CLASSIFICATION,
                calibrate=str(demo_folder() / "calibrate.npz"),
                test=str(demo_folder() / "test.npz"),
            ),
            budget=Budget(size_mib=0.4),
            search=SearchConfig(effort=Effort.FAST, seed=SEED),
        )
        found = optimize(project, base=work, output=run)
        if found.chosen is None:
            sys.exit(f"{model.stem}: nothing fits 0.4 MiB: {'; '.join(found.advice)}")
        print(f"  {model.stem}: {found.chosen.name}, {found.chosen.size_mib:.3f} MiB, top-1 {found.chosen.score:.3f}")
    output = work / "out.edgewise"
    label = Label(product="demo", version=version)
    seal(run, output, label=label, signer=signer_of(KEY), fallback=fallback)
    return output.read_bytes()


KEY = generate()


def main() -> None:
    """Train, quantize, seal, measure, print."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ["XDG_CACHE_HOME"] = str(work / "cache")
        net = train(split("test"), EPOCHS, BATCH, RATE)
        export(net, work / "first.onnx")
        state = {name: value.clone() for name, value in net.state_dict().items()}
        for name, head_only in (("head-only", True), ("fine-tuned", False)):
            net.load_state_dict(state)
            tune(net, split("calibrate"), head_only=head_only)
            export(net, work / f"{name}.onnx")
        rows = []
        for fallback in (False, True):
            old = sealed(work / "first.onnx", work, "1.0.0", fallback=fallback)
            for name in ("head-only", "fine-tuned"):
                new = sealed(work / f"{name}.onnx", work, "1.1.0", fallback=fallback)
                rows.append((f"{name}, int8{' and fp32' if fallback else ''}", old, new))
        print(f"\n{'update':<28}{'bundle':>10}{'zstd':>9}{'bsdiff4':>9}{'zstd patch':>12}{'tensors':>9}  shipped")
        for name, old, new in rows:
            print(row(name, old, new))


def row(name: str, old: bytes, new: bytes) -> str:
    """Return one line of the table: sizes in per cent of the new bundle."""
    ours = {each.method: len(each.data) for each in candidates(old, new)}
    sizes = [
        len(compressed(new)),
        len(bsdiff4.diff(old, new)),
        len(compressed(new, dictionary=old)),
        ours.get(Method.TENSORS, len(new)),
    ]
    cells = [f"{size / len(new):.1%}" for size in sizes]
    best = make_delta(old, new)
    shipped = "the whole bundle" if best is None else f"{best.method} {len(best.data) / len(new):.1%}"
    return f"{name:<28}{len(new):>10}{cells[0]:>9}{cells[1]:>9}{cells[2]:>12}{cells[3]:>9}  {shipped}"


if __name__ == "__main__":
    main()
