"""Does it matter which samples are calibrated on? Set cover and k-centre against random and spread.

    python calibration.py --cache DIR [TASK ...]      (prepared folders, as `zoo.py` makes them; edgewise installed)

Quantizes everything to static int8 from N samples of the calibration pool and prints the task's
divergence to fp32 on other samples, its mean and its tail (the mean of the worst twentieth), as
ratios to those of random samples (the mean over five seeds). Below 1 a method is closer to fp32 than
random ones. `spread` is what `edgewise optimize` does; `all` calibrates on the whole pool. Without
a test split half of the pool is judged and left out of the choice. Deterministic: no times.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from edgewise.contracts.curation import Method
from edgewise.contracts.recipe import Format, RangeMethod
from edgewise.contracts.task import TaskConfig
from edgewise.forge.calibrate import calibrate
from edgewise.forge.curate.choose import choose, coverage, elements, range_shares
from edgewise.forge.curate.observe import observe
from edgewise.forge.data.labels import Labelled, has_integer_labels
from edgewise.forge.data.open import open_dataset
from edgewise.forge.data.split import Subset, split_pool
from edgewise.forge.graph import Graph
from edgewise.forge.importing.sandbox import import_model
from edgewise.forge.judge import refer
from edgewise.forge.lower.lowering import lower
from edgewise.forge.regions import regions_of
from edgewise.forge.search.options import Style, offered, uniform
from edgewise.forge.targets import load_target
from edgewise.forge.tasks.choose import choose_task
from edgewise.forge.weights import Corrections, parameters_for
from edgewise.runtimes.onnxruntime_ import OnnxRuntime

TASKS = ("resnet8-cifar10", "dscnn-kws", "mobilenetv1-vww", "mobilenetv2-imagenet", "stories260k")
SIZES = (16, 32, 64)
SEEDS = range(5)
RANGES = (RangeMethod.MSE, RangeMethod.PERCENTILE_9999, RangeMethod.MIN_MAX)
JUDGED, WORST = 256, 0.05
ALL, SPREAD = "all", "spread"

Loss = tuple[float, float]
"""Mean and tail of the divergence."""


class Bench:
    """One model: quantizes it from given samples and judges the result."""

    def __init__(self, folder: Path, work: Path) -> None:
        """Import the model, observe the pool, run fp32 over the judged samples."""
        self.runtime = OnnxRuntime()
        imported = import_model(str(folder / "model.onnx"), base=folder, inputs={}, work=work)
        self.graph = Graph(onnx.load(str(imported.normalised)))
        self.regions = regions_of(self.graph)
        fp32 = self.runtime.load(imported.original)
        config = TaskConfig(calibrate="calibrate.npz")
        self.pool: Labelled = open_dataset(folder / "calibrate.npz", config=config, inputs=fp32.inputs)
        if (folder / "test.npz").exists():
            judged: Labelled = open_dataset(folder / "test.npz", config=config, inputs=fp32.inputs)
        else:
            mine, aside = split_pool(len(self.pool), share=0.5, seed=0)
            self.pool, judged = Subset(self.pool, mine), Subset(self.pool, aside)
        self.task = choose_task(
            None,
            config=config,
            outputs=fp32.outputs,
            inputs=fp32.inputs,
            has_labels=judged.targets is not None,
            folder=folder,
            integer_labels=has_integer_labels(judged),
        )
        self.seen = observe(self.graph, self.regions, self.pool, range(len(self.pool)), runtime=self.runtime, threads=1)
        some = np.linspace(0, len(judged) - 1, min(JUDGED, len(judged))).round().astype(int).tolist()
        self.reference = refer(self.task, fp32, Subset(judged, some))
        self.offers = offered(self.graph, self.regions, load_target("local"))

    def loss(self, rows: Sequence[int], method: RangeMethod) -> Loss:
        """Return the divergence of all-static-int8 with the ranges of these samples."""
        found = calibrate(self.graph, self.regions, self.pool, list(rows), runtime=self.runtime, threads=1)
        recipe = uniform(self.regions, self.offers, Format.INT8_STATIC, Style(range_method=method), name="all")
        parameters = parameters_for(self.graph, self.regions, recipe, found, Corrections())
        session = self.runtime.load(
            bytes(lower(self.graph, self.regions, recipe, parameters).SerializeToString()), threads=1
        )
        far = np.sort(
            [
                self.task.divergence(want, session.run(feeds))
                for feeds, want in zip(self.reference.feeds, self.reference.outputs, strict=True)
            ]
        )
        return float(far.mean()), float(far[-max(1, round(WORST * far.size)) :].mean())


def main() -> None:
    """Print one row per task, size and range method."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("tasks", nargs="*", default=list(TASKS))
    args = parser.parse_args()
    ratios: dict[str, list[Loss]] = {}
    for task in args.tasks:
        with tempfile.TemporaryDirectory() as work:
            for row in rows_of(task, Bench(args.cache / task, Path(work))):
                for name, loss in row.items():
                    ratios.setdefault(name, []).append(loss)
    for name, losses in ratios.items():
        mean, tail = np.exp(np.log(losses).mean(axis=0))
        print(json.dumps({"geometric mean of ratios": name, "mean": round(mean, 3), "tail": round(tail, 3)}))


def rows_of(task: str, bench: Bench) -> list[dict[str, Loss]]:
    """Print and return the ratios to random of one task: a row per size and range method."""
    pool, rows = len(bench.pool), []
    found = elements(bench.seen)
    for size in SIZES:
        if size >= pool:
            continue
        kept, _ = split_pool(pool, share=1 - size / pool, seed=0)
        picks: dict[str, list[list[int]]] = {
            str(Method.RANDOM): [choose(bench.seen, size, method=Method.RANDOM, seed=seed) for seed in SEEDS],
            str(Method.COVER): [choose(bench.seen, size, method=Method.COVER, seed=0)],
            str(Method.K_CENTRE): [choose(bench.seen, size, method=Method.K_CENTRE, seed=0)],
            SPREAD: [list(kept[:size])],
            ALL: [list(range(pool))],
        }
        for name, each in picks.items():
            covered = np.mean([coverage(found, some) for some in each])
            share = np.mean([range_shares(bench.seen, some).mean() for some in each])
            print(json.dumps({"task": task, "samples": size, "method": name, "coverage": covered, "ranges": share}))
        for method in RANGES:
            losses = {name: [bench.loss(some, method) for some in each] for name, each in picks.items()}
            random = np.mean(losses[Method.RANDOM], axis=0)
            row = {name: tuple((np.mean(each, axis=0) / random).round(3).tolist()) for name, each in losses.items()}
            seeds = (np.array(losses[Method.RANDOM])[:, 0] / random[0]).round(3).tolist()
            print(json.dumps({"task": task, "samples": size, "range": method, **row, "seeds": seeds}), flush=True)
            rows.append(row)
    return rows


if __name__ == "__main__":
    main()
