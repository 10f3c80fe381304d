"""Plants six faults in int8 variants of the zoo's models and says what `edgewise verify` calls them.

    python benchmarks/verify_faults.py [--tasks T ...]

Every variant is ONNX Runtime's per-channel min-max, healthy first, so that what is said of a healthy variant stands
beside what is said of the broken ones; of MobileNetV2, whose min-max variant fails by itself, it is the one that
`edgewise optimize` chose, verified as its run (which is made where verify_zoo.py has not). Faults: min-max calibration
with one outlier planted in it, in the samples or, where ReLU6 holds those within bounds, in one layer's values; the
weights of a layer, or its activations, on twice their scale; a zero point of one channel moved; the weights of one
class perturbed; calibration on data of another set; one class (of ImageNet: all dogs) that the variant loses while the
average is fine. Looked at are the suites that look for them: agreement, where, integrity (in this process, from the
same code as the command).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
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
from edgewise.contracts.recipe import RangeMethod, Recipe
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.task import TaskConfig
from edgewise.contracts.verification import Finding, Grade
from edgewise.forge.calibrate import calibrate
from edgewise.forge.data.open import open_dataset
from edgewise.forge.graph import Graph
from edgewise.forge.importing.sandbox import import_model
from edgewise.forge.kept import kept_of, read_kept, write_kept
from edgewise.forge.lower.lowering import lower
from edgewise.forge.progress import Silent
from edgewise.forge.regions import regions_of
from edgewise.forge.verify.agreement import agreement
from edgewise.forge.verify.given import Given, given_by_run
from edgewise.forge.verify.integrity import integrity
from edgewise.forge.verify.open import Asked, open_subject
from edgewise.forge.verify.where import where
from edgewise.forge.weights import Known, parameters_for
from edgewise.runtimes import runtime
from run import CACHE, RUNS
from verify_zoo import int8

Array = NDArray[Any]
TASKS = ("resnet8-cifar10", "dscnn-kws", "mobilenetv2-imagenet")
OWN = ("mobilenetv2-imagenet",)
# Of ImageNet's classes the dogs: 600 test samples have 600 classes, so that no class is a group of its own.
KINDS = {"mobilenetv2-imagenet": np.arange(151, 269)}
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


class Layer(NamedTuple):
    """An operator with integer weights: what it writes, the names of its constants, the axis of its output channels."""

    output: str
    codes: str
    scale: str
    zero: str
    axis: int


class Variant:
    """An int8 model of whatever quantizer, and ways to break it."""

    def __init__(self, path: Path) -> None:
        """Read it; constants are found by what reads them, not by how a quantizer names them."""
        self.model = onnx.load(str(path))
        self.held = {each.name: numpy_helper.to_array(each) for each in self.model.graph.initializer}
        makers = {out: node for node in self.model.graph.node for out in node.output}
        found = [self._layer(node, makers.get(node.input[1])) for node in self.model.graph.node if len(node.input) > 1]
        self.layers = [each for each in found if each is not None]

    def _layer(self, node: onnx.NodeProto, maker: onnx.NodeProto | None) -> Layer | None:
        if node.op_type == "MatMulIntegerToFloat" and node.input[1] in self.held:
            return Layer(node.output[0], node.input[1], node.input[3], node.input[5], self.held[node.input[1]].ndim - 1)
        if node.op_type not in {"Conv", "Gemm", "MatMul"} or maker is None or maker.op_type != "DequantizeLinear":
            return None
        if len(maker.input) != 3 or any(each not in self.held for each in maker.input):
            return None
        first = node.op_type == "Conv" or any(each.name == "transB" and each.i for each in node.attribute)
        codes, scale, zero = maker.input
        return Layer(node.output[0], codes, scale, zero, 0 if first else self.held[codes].ndim - 1)

    def activation(self, layer: Layer) -> str:
        """Return the name of the scale that a layer's output is written with."""
        nodes = self.model.graph.node
        written = {layer.output, *(each.output[0] for each in nodes if each.input and each.input[0] == layer.output)}
        return next(
            str(each.input[1]) for each in nodes if each.op_type == "QuantizeLinear" and each.input[0] in written
        )

    def edit(self, name: str, change: Callable[[Array], Array]) -> None:
        """Replace one constant."""
        held = next(each for each in self.model.graph.initializer if each.name == name)
        before = numpy_helper.to_array(held)
        held.CopyFrom(numpy_helper.from_array(change(before.copy()).astype(before.dtype).reshape(before.shape), name))

    def edit_rows(self, layer: Layer, change: Callable[[Array], None]) -> None:
        """Change a layer's codes in place, as `[channels, ...]` in 64 bits; they are clipped to [-127, 127]."""

        def edited(codes: Array) -> Array:
            rows = np.moveaxis(codes.astype(np.int64), layer.axis, 0)
            change(rows)
            return np.asarray(np.clip(np.moveaxis(rows, 0, layer.axis), -127, 127))

        self.edit(layer.codes, edited)

    def save(self, path: Path) -> Path:
        """Write the broken model."""
        onnx.save(self.model, str(path))
        return path


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


class Planted(msgspec.Struct, frozen=True):
    """A broken variant, and what its run says of it where it has one."""

    path: Path
    recipe: Recipe | None = None
    kept: Path | None = None
    equalised: Path | None = None
    groups: Path | None = None


class Own:
    """The variant that `edgewise optimize` chose for a task, and what its recipe makes on other calibration data."""

    def __init__(self, task: str, folder: Path) -> None:
        """Read the run; it is made where there is none."""
        made = int8(task, Path(sys.executable).with_name("edgewise"))
        if made is None or made[0] != "edgewise":
            raise SystemExit(f"{task}: edgewise chooses no integers on this machine; choose another task with --tasks")
        given = given_by_run(Path(str(made[1][0])))
        kept = read_kept(given.kept) if given.kept is not None else None
        if given.recipe is None or kept is None:
            raise SystemExit(f"{task}: the run kept no ranges; make it again with this version")
        self.healthy = Planted(given.variant, given.recipe, given.kept, given.equalised)
        self._recipe, self._corrections, self._work = given.recipe, kept.corrections, folder
        imported = import_model(str(CACHE / task / "model.onnx"), base=folder, inputs={}, work=folder)
        self._graph = Graph(onnx.load(str(given.equalised or imported.normalised)))
        self._model = imported.original

    def calibrated(self, samples: Array, path: Path, *, outlier: bool = False) -> Planted:
        """Build the recipe again with the ranges of these samples; a layer's with one outlier among its values."""
        np.savez(self._work / "samples.npz", x=samples)
        execute, regions = runtime(RuntimeName.ONNXRUNTIME), regions_of(self._graph)
        config = TaskConfig(calibrate="samples.npz", test="samples.npz")
        pool = open_dataset(self._work / "samples.npz", config=config, inputs=execute.load(self._model).inputs)
        found = calibrate(self._graph, regions, pool, range(len(samples)), runtime=execute, threads=1)
        plans = {each.region: each for each in self._recipe.regions}
        if outlier:
            signed = [each for each in regions if each.name in plans and found.histograms[each.output].low < 0]
            layer = signed[len(signed) // 2]
            values = found.histograms[layer.output]
            values.update(np.array([16 * values.high]))
            plans[layer.name] = msgspec.structs.replace(plans[layer.name], range_method=RangeMethod.MIN_MAX)
        recipe = msgspec.structs.replace(self._recipe, regions=tuple(plans.values()))
        known = Known()
        parameters = parameters_for(self._graph, regions, recipe, found, self._corrections, known)
        onnx.save(lower(self._graph, regions, recipe, parameters), str(path))
        kept = path.with_suffix(".npz")
        write_kept(kept, kept_of(tuple(found.histograms), known.ranges, self._corrections, recipe))
        return Planted(path, recipe, kept, self.healthy.equalised)


def broken(task: str, folder: Path) -> dict[str, Planted]:
    """Return the healthy variant and the broken ones, by name."""
    with np.load(CACHE / task / "calibrate.npz") as data:
        samples = data[data.files[0]][:128]
    if task in OWN:
        own = Own(task, folder)
        good = own.healthy
        outlier = own.calibrated(samples, folder / "outlier.onnx", outlier=True)
        stale = own.calibrated(elsewhere(task, samples), folder / "stale.onnx")
    else:
        model = CACHE / task / "model.onnx"
        good = Planted(quantized(model, samples, folder / "healthy.onnx"))
        outlier = Planted(quantized(model, with_outlier(samples), folder / "outlier.onnx"))
        stale = Planted(quantized(model, elsewhere(task, samples), folder / "stale.onnx"))
    made = {"healthy": good, "outlier in calibration": outlier, "calibrated on another set": stale}

    def plant(name: str, change: Callable[[Variant, Layer], None], *, last: bool = False) -> None:
        variant = Variant(good.path)
        change(variant, variant.layers[-1 if last else len(variant.layers) // 2])
        path = variant.save(folder / f"{name.replace(' ', '-')}.onnx")
        made[name] = msgspec.structs.replace(good, path=path)

    def one(zeros: Array) -> Array:
        zeros[3] = 9
        return zeros

    def noisy(rows: Array) -> None:
        rows[4] += np.random.default_rng(0).integers(-20, 20, rows[4].shape)

    plant("weights on twice their scale", lambda it, layer: it.edit(layer.scale, lambda scale: scale * 2))
    plant("activations on twice their scale", lambda it, at: it.edit(it.activation(at), lambda scale: scale * 2))
    plant("zero point of one channel", lambda it, layer: it.edit(layer.zero, one))
    plant("row of one class", lambda it, layer: it.edit_rows(layer, noisy), last=True)
    return made


def subgroup(task: str, good: Planted, folder: Path) -> Planted:
    """Return a variant that loses one class, or one kind of classes, and the file of groups that names it `rare`."""
    with np.load(CACHE / task / "test.npz") as data:
        labels = data["y"]
        samples = data[next(name for name in data.files if name != "y")]
    lost = KINDS.get(task, np.bincount(labels).argmax().reshape(1))
    mine = np.isin(labels, lost)
    some = np.flatnonzero(mine)[:_TRIED]

    def right(path: Path) -> float:
        session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        answers = [session.run(None, {name: samples[at][None].astype(np.float32)})[0].argmax() for at in some]
        return float(np.mean(np.array(answers) == labels[some]))

    before, path = right(good.path), folder / "subgroup.onnx"
    for steps in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32):  # features are positive: lower weights are a lower score
        variant = Variant(good.path)

        def lower_by(rows: Array, steps: int = steps) -> None:
            rows[lost] -= steps

        variant.edit_rows(variant.layers[-1], lower_by)
        if right(variant.save(path)) < before - _LOST:
            break
    groups = folder / "groups.txt"
    groups.write_text("\n".join("rare" if each else f"common {at % 3}" for at, each in enumerate(mine)))
    return msgspec.structs.replace(good, path=path, groups=groups)


def troubles(task: str, planted: Planted, work: Path) -> tuple[list[Finding], float]:
    """Return what is failed, flagged or unknown, and the processor time."""
    data = CACHE / task
    given = Given(
        variant=planted.path,
        reference=ModelConfig(path=str(data / "model.onnx")),
        task=TaskConfig(calibrate="calibrate.npz", test="test.npz"),
        base=data,
        recipe=planted.recipe,
        kept=planted.kept,
        equalised=planted.equalised,
    )
    begin = time.process_time()
    subject = open_subject(given, Asked(groups=planted.groups), work=work, progress=Silent()).subject
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
            variants = broken(task, folder)
            variants["one class lost"] = subgroup(task, variants["healthy"], folder)
            wanted = tuple(args.faults) if args.faults else ("",)
            for fault, planted in variants.items():
                if not fault.startswith(wanted):
                    continue
                found, seconds = troubles(task, planted, folder / "work")
                table.add_row(fault, f"{seconds:.0f}", told(found))
                kept[fault] = [[str(each.grade), each.name, each.subject, each.detail] for each in found]
        (RUNS / task).mkdir(parents=True, exist_ok=True)
        (RUNS / task / "faults.json").write_text(json.dumps(kept, indent=1))
        console.print(table)


if __name__ == "__main__":
    main()
