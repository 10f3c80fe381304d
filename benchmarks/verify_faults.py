"""Plants six faults in int8 variants of the zoo's models and says what `edgewise verify` calls them.

    python benchmarks/verify_faults.py [--tasks T ...]

Every variant is ONNX Runtime's per-channel min-max, healthy first, so that what is said of a healthy variant stands
beside what is said of the broken ones. Faults: calibration with one outlier planted in it; the weights of a layer, or
its activations, on twice their scale; a zero point of one channel moved; the weights of one class perturbed;
calibration on data of another set; one class that the variant loses while the average is fine. Looked at are the suites
that look for them: agreement, where, integrity (in this process, from the same code as the command).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime import InferenceSession
from onnxruntime.quantization import CalibrationDataReader, QuantType, quant_pre_process, quantize_static
from rich.console import Console
from rich.table import Table

import opset
from edgewise.contracts.project import ModelConfig
from edgewise.contracts.task import TaskConfig
from edgewise.contracts.verification import Finding, Grade
from edgewise.forge.progress import Silent
from edgewise.forge.verify.agreement import agreement
from edgewise.forge.verify.given import Given
from edgewise.forge.verify.integrity import integrity
from edgewise.forge.verify.open import Asked, open_subject
from edgewise.forge.verify.where import where
from run import CACHE, RUNS

Array = NDArray[Any]
TASKS = ("resnet8-cifar10", "dscnn-kws", "mobilenetv2-imagenet")
_TRIED, _LOST = 60, 0.3
console = Console(width=180)


class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped library
    """Hands out samples one by one."""

    def __init__(self, name: str, samples: Array) -> None:
        """Take the model's input and its samples."""
        self._name, self._rest = name, iter(samples)

    def get_next(self) -> dict[str, Array] | None:
        """Return the next sample."""
        sample = next(self._rest, None)
        return None if sample is None else {self._name: sample[None].astype(np.float32)}


class Variant:
    """An int8 model as ONNX Runtime's quantizer writes it, and ways to break it."""

    def __init__(self, path: Path) -> None:
        """Read it."""
        self.model = onnx.load(str(path))
        self.held = {each.name: numpy_helper.to_array(each) for each in self.model.graph.initializer}
        makers = {out: node for node in self.model.graph.node for out in node.output}
        self.layers: list[tuple[onnx.NodeProto, str]] = []
        """Nodes with an integer weight, and its name without an ending."""
        for node in self.model.graph.node:
            maker = makers.get(node.input[1]) if len(node.input) > 1 else None
            integer = maker is not None and maker.op_type == "DequantizeLinear" and maker.input[0] in self.held
            if maker is not None and integer and node.op_type in {"Conv", "Gemm", "MatMul"}:
                self.layers.append((node, maker.input[0].removesuffix("_quantized")))

    def edit(self, name: str, change: Callable[[Array], Array]) -> None:
        """Replace one constant."""
        held = next(each for each in self.model.graph.initializer if each.name == name)
        before = numpy_helper.to_array(held)
        held.CopyFrom(numpy_helper.from_array(change(before.copy()).astype(before.dtype).reshape(before.shape), name))

    def save(self, path: Path) -> Path:
        """Write the broken model."""
        onnx.save(self.model, str(path))
        return path

    def class_axis(self) -> int:
        """Return the axis of the classes in the last layer's weight."""
        node, weight = self.layers[-1]
        first = node.op_type == "Conv" or any(each.name == "transB" and each.i for each in node.attribute)
        return 0 if first else self.held[f"{weight}_quantized"].ndim - 1


def quantized(model: Path, samples: Array, path: Path) -> Path:
    """Quantize per channel, u8 activations, min-max over samples."""
    ready = path.with_name("ready.onnx")
    if not ready.exists():
        quant_pre_process(opset.load(model), str(ready))
    name = onnx.load(str(ready)).graph.input[0].name
    quantize_static(
        str(ready),
        str(path),
        Reader(name, samples),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return path


def with_outlier(samples: Array) -> Array:
    """Return the samples with one value of one of them far out."""
    changed = samples.astype(np.float32).copy()
    changed[3].reshape(-1)[changed[3].size // 3] = 16 * np.abs(changed).max()
    return changed


def elsewhere(task: str, samples: Array) -> Array:
    """Return calibration samples of another data set, in the shape and unit of this one."""
    if task == "resnet8-cifar10":  # parts of pictures of people, as dark as their set is
        with np.load(CACHE / "mobilenetv1-vww" / "calibrate.npz") as data:
            return np.asarray(data["x"][:, 32:64, 32:64] * 64, np.float32)
    if task == "mobilenetv2-imagenet":  # small pictures in 0..1, as for another model
        with np.load(CACHE / "resnet8-cifar10" / "calibrate.npz") as data:
            return np.asarray(np.repeat(np.repeat(data["x"][:64].transpose(0, 3, 1, 2) / 255, 7, 2), 7, 3), np.float32)
    draw = np.random.default_rng(0)  # features of noise: no other set of sounds has been made into such features
    return draw.normal(samples.mean(), samples.std() / 4, samples[:64].shape).astype(np.float32)


def broken(task: str, folder: Path) -> dict[str, Path]:
    """Return the healthy variant and the broken ones, by name."""
    model = CACHE / task / "model.onnx"
    with np.load(CACHE / task / "calibrate.npz") as data:
        samples = data[data.files[0]][:128]
    good = quantized(model, samples, folder / "healthy.onnx")
    made = {"healthy": good}
    made["outlier in calibration"] = quantized(model, with_outlier(samples), folder / "outlier.onnx")
    made["calibrated on another set"] = quantized(model, elsewhere(task, samples), folder / "stale.onnx")

    def plant(name: str, change: Callable[[Variant], None]) -> None:
        variant = Variant(good)
        change(variant)
        made[name] = variant.save(folder / f"{name.replace(' ', '-')}.onnx")

    middle = len(Variant(good).layers) // 2
    draw = np.random.default_rng(0)

    def weights(variant: Variant) -> None:
        variant.edit(f"{variant.layers[middle][1]}_scale", lambda scale: scale * 2)

    def activations(variant: Variant) -> None:
        node = variant.layers[middle][0]
        written = {node.output[0]} | {
            each.output[0] for each in variant.model.graph.node if each.input and each.input[0] == node.output[0]
        }
        name = next(f"{each}_scale" for each in written if f"{each}_scale" in variant.held)
        variant.edit(name, lambda scale: scale * 2)

    def zero(variant: Variant) -> None:
        def one(zeros: Array) -> Array:
            zeros[3] = 9
            return zeros

        variant.edit(f"{variant.layers[middle][1]}_zero_point", one)

    def row(variant: Variant) -> None:
        def noisy(codes: Array) -> Array:
            rows = np.moveaxis(codes, variant.class_axis(), 0)
            rows[4] = np.clip(rows[4].astype(np.int64) + draw.integers(-20, 20, rows[4].shape), -127, 127)
            return codes

        variant.edit(f"{variant.layers[-1][1]}_quantized", noisy)

    plant("weights on twice their scale", weights)
    plant("activations on twice their scale", activations)
    plant("zero point of one channel", zero)
    plant("row of one class", row)
    return made


def subgroup(task: str, good: Path, folder: Path) -> tuple[Path, Path]:
    """Return a variant that loses one class, and the file of groups that names it `rare`."""
    with np.load(CACHE / task / "test.npz") as data:
        labels = data["y"]
        samples = data[next(name for name in data.files if name != "y")]
    lost = int(np.bincount(labels).argmax())
    some = np.flatnonzero(labels == lost)[:_TRIED]

    def right(path: Path) -> float:
        session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        answers = [session.run(None, {name: samples[at][None].astype(np.float32)})[0].argmax() for at in some]
        return float(np.mean(np.array(answers) == lost))

    before, path = right(good), folder / "subgroup.onnx"
    for steps in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32):  # features are positive: lower weights are a lower score
        variant = Variant(good)

        def lower(codes: Array, variant: Variant = variant, steps: int = steps) -> Array:
            rows = np.moveaxis(codes, variant.class_axis(), 0)
            rows[lost] = np.clip(rows[lost].astype(np.int64) - steps, -127, 127)
            return codes

        variant.edit(f"{variant.layers[-1][1]}_quantized", lower)
        if right(variant.save(path)) < before - _LOST:
            break
    groups = folder / "groups.txt"
    groups.write_text("\n".join("rare" if label == lost else f"common {at % 3}" for at, label in enumerate(labels)))
    return path, groups


def troubles(task: str, variant: Path, groups: Path | None, work: Path) -> tuple[list[Finding], float]:
    """Return what is failed, flagged or unknown, and the processor time."""
    data = CACHE / task
    given = Given(
        variant=variant,
        reference=ModelConfig(path=str(data / "model.onnx")),
        task=TaskConfig(calibrate="calibrate.npz", test="test.npz"),
        base=data,
    )
    begin = time.process_time()
    subject = open_subject(given, Asked(groups=groups), work=work, progress=Silent()).subject
    found = [each for suite in (agreement, where, integrity) for each in suite(subject, Silent()).findings]
    bad = [each for each in found if each.grade in {Grade.FAIL, Grade.FLAG, Grade.UNKNOWN}]
    return bad, time.process_time() - begin


def told(found: list[Finding]) -> str:
    """Say findings by grade and name, with how many subjects and the first of them."""
    by_name: dict[tuple[str, str], list[str]] = {}
    for each in found:
        by_name.setdefault((str(each.grade), each.name), []).append(each.subject)
    lines = []
    for (grade, name), subjects in sorted(by_name.items(), key=lambda item: item[0][0] != "fail"):
        which = subjects[0][-48:] + (f" +{len(subjects) - 1}" if len(subjects) > 1 else "")
        lines.append(f"{grade} {name}" + (f" ({which})" if which else ""))
    return "\n".join(lines) or "passes"


def main() -> None:
    """Break, verify, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--faults", nargs="+", help="only those whose names begin so; all without it")
    args = parser.parse_args()
    for task in args.tasks:
        table = Table(title=task, show_lines=True)
        for head in ("fault", "CPU s", "what was found"):
            table.add_column(head)
        kept = {}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            variants: dict[str, tuple[Path, Path | None]] = {
                key: (path, None) for key, path in broken(task, folder).items()
            }
            variants["one class lost"] = subgroup(task, variants["healthy"][0], folder)
            wanted = tuple(args.faults) if args.faults else ("",)
            for fault, (variant, groups) in variants.items():
                if not fault.startswith(wanted):
                    continue
                found, seconds = troubles(task, variant, groups, folder / "work")
                table.add_row(fault, f"{seconds:.0f}", told(found))
                kept[fault] = [[str(each.grade), each.name, each.subject, each.detail] for each in found]
        (RUNS / task).mkdir(parents=True, exist_ok=True)
        (RUNS / task / "faults.json").write_text(json.dumps(kept, indent=1))
        console.print(table)


if __name__ == "__main__":
    main()
