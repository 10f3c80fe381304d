"""How late the drift alarm is, how often it is false, and what it costs.

    python benchmarks/drift.py --zoo ZOO --dscnn SLOT --mobilenet SLOT [--days 20] [--seeds 20]

SLOT is the folder of an extracted bundle (`edgewise seal`, `edgewise bundle extract`) of that task of the zoo.
References are made as sealing makes them, from a part of the test split; streams are drawn, with replacement, from the
rest. A clean day is 86,400 inputs, one a second. Drift sets in after 2,000 clean inputs and goes on for 5,000; a delay
is in inputs, from there until the alarm is raised (it is looked for every 200). Delays are printed for all scores, and
for those of the outputs alone.
"""

import argparse
import csv
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

import zoo as prepared
from edgewise.contracts.task import ImageOptions
from edgewise.device.bundled import open_variant
from edgewise.device.drift.policy import DriftPolicy
from edgewise.device.drift.watch import BATCH, DriftWatch
from edgewise.device.ready import Ready
from edgewise.forge.seal.drift import references
from edgewise.forge.tasks.base import Feeds, Sample
from edgewise.forge.tasks.classification import Classification
from edgewise.forge.verify.corruptions import images, sounds
from edgewise.forge.verify.corruptions.pixels import IMAGENET_MEAN, IMAGENET_STD, space_of_options
from edgewise.numerics.scores import ENERGY_SCORE, MARGIN
from edgewise.runtimes import runtime
from edgewise.runtimes.base import Array

DAY, BEFORE, AFTER = 86_400, 2_000, 5_000
SNRS_DB = (30.0, 20.0, 15.0, 10.0, 5.0, 0.0)
CORRUPTIONS, SEVERITIES = images.QUICK[:5], (1, 3, 5)
PICTURES = 100

Item = tuple[dict[str, Array], dict[str, Array]]
"""Inputs and outputs of one inference."""


class Kept:
    """Samples in memory, as a split."""

    name = "kept"

    def __init__(self, feeds: Sequence[Feeds]) -> None:
        """Keep them."""
        self._feeds = feeds

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._feeds)

    def __getitem__(self, index: int, /) -> Sample:
        """Return one."""
        return Sample(self._feeds[index])

    def digest(self) -> str:
        """Return nothing: it is not asked for."""
        return ""


def watched(folder: Path, feeds: Sequence[Feeds]) -> Ready:
    """Return the chosen variant of a bundle, its references made anew from these samples."""
    ready = open_variant(folder, None, state=())
    manifest = ready.manifest
    if manifest is None or ready.stored is None:
        raise SystemExit(f"{folder}: not the bundle of a classifier")
    by_name = {each.name: each for each in manifest.variants}
    variant, fp32 = by_name[ready.variant], by_name[manifest.fallback]
    session, reference = (runtime(each.runtime).load(folder / each.model, threads=1) for each in (variant, fp32))
    classes = int(np.prod([n or 1 for n in manifest.outputs[0].shape]))
    found = references(Classification(classes=classes), session, reference, Kept(feeds), last=False, seed=0)
    variants = (msgspec.structs.replace(variant, drift=found),)
    return ready._replace(manifest=msgspec.structs.replace(manifest, variants=variants))


def answered(ready: Ready, feeds: Sequence[Feeds]) -> list[Item]:
    """Return what the variant says to each of them."""
    found = []
    for each in feeds:
        outputs = {name: array.copy() for name, array in ready.session.run(each).items()}
        found.append((dict(each), outputs))
    return found


def right(items: Sequence[Item], labels: Sequence[int]) -> float:
    """Return top-1."""
    return float(np.mean([next(iter(out.values())).argmax() == y for (_, out), y in zip(items, labels, strict=True)]))


def play(watch: DriftWatch, items: Sequence[Item], count: int, generator: np.random.Generator) -> None:
    """Record so many inferences, drawn from these."""
    for at in generator.integers(len(items), size=count):
        watch.record(*items[at])


def false_alarms(ready: Ready, clean: Sequence[Item], days: int) -> None:
    """Print how many simulated days of clean data raised an alarm."""
    alarmed = []
    for seed in range(days):
        watch = DriftWatch(ready)
        play(watch, clean, DAY, np.random.default_rng(seed))
        alarmed += [watch.alarms[0].reason] if watch.alarms else []
    windows = DAY // 100
    print(f"  clean: {len(alarmed)} of {days} days of {DAY} inputs ({windows} windows of each score) raised an alarm")
    for reason in alarmed[:3]:
        print(f"    {reason}")


def delays(ready: Ready, clean: Sequence[Item], drifted: Sequence[Item], seeds: int) -> tuple[list[int], str]:
    """Return the delay of every stream that alarmed, and which test was first most often."""
    found, firsts = [], []
    for seed in range(seeds):
        watch, generator = DriftWatch(ready), np.random.default_rng(1000 + seed)
        play(watch, clean, BEFORE, generator)
        if watch.alarms:
            continue
        for looked in range(0, AFTER, BATCH):
            play(watch, drifted, BATCH, generator)
            if watch.alarms:
                found.append(looked + BATCH)
                firsts.append(f"{watch.alarms[0].test} of {watch.alarms[0].score}")
                break
    return found, max(set(firsts), key=firsts.count) if firsts else "none"


def outputs_alone(ready: Ready) -> Ready:
    """Return it with references for margin and energy score only."""
    manifest = ready.manifest
    if manifest is None:
        raise SystemExit("not a bundle")
    kept = tuple(each for each in manifest.variants[0].drift if each.score in {MARGIN, ENERGY_SCORE})
    variants = (msgspec.structs.replace(manifest.variants[0], drift=kept),)
    return ready._replace(manifest=msgspec.structs.replace(manifest, variants=variants))


def show(words: str, top1: float, rows: Sequence[tuple[list[int], str]], seeds: int) -> None:
    """Print the delays under one condition, of all scores and of the outputs' alone."""
    cells = []
    for found, first in rows:
        delay = f"{np.median(found):.0f} (at most {max(found)})" if found else "-"
        cells.append(f"{len(found)}/{seeds}, delay {delay}, first {first}")
    print(f"  {words:30} top-1 {top1:.3f} | {cells[0]} | outputs alone: {cells[1]}")


def cost(ready: Ready, clean: Sequence[Item]) -> None:
    """Print what recording adds to an inference, in processor time: a busy machine does not change that."""
    watch, taken = DriftWatch(ready), []
    begin = time.process_time_ns()
    for turn in range(20 * BATCH):
        item = clean[turn % len(clean)]
        started = time.perf_counter_ns()
        watch.record(*item)
        taken.append((time.perf_counter_ns() - started) / 1e3)
    mean = (time.process_time_ns() - begin) / 1e3 / len(taken)
    begin = time.process_time_ns()
    for turn in range(200):
        ready.session.run(clean[turn % len(clean)][0])
    inference = (time.process_time_ns() - begin) / 1e3 / 200
    look = (mean - float(np.median(taken))) * BATCH / 1e3
    print(
        f"  cost: {np.median(taken):.1f} us (median), about {look:.1f} ms more every {BATCH}th; "
        f"{mean:.1f} us on average = {mean / inference:.1%} of an inference of {inference:.0f} us of processor time"
    )


def dscnn(folder: Path, slot: Path, days: int, seeds: int) -> None:
    """Keyword spotting, with noise added to the sound before the front end."""
    sys.path.insert(0, str(folder))
    import soundfile  # noqa: PLC0415 - only for this task
    from mfcc import mfcc  # type: ignore[import-not-found]  # noqa: PLC0415 - it lies beside the data

    with np.load(folder / "test.npz") as arrays:
        x, y = arrays["x"].astype(np.float32), arrays["y"]
    with (folder / "wav" / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    clips = {int(row["test_index"]): folder / "wav" / row["file"] for row in rows}
    rest = np.random.default_rng(0).permutation([at for at in range(len(x)) if at not in clips])
    ready = watched(slot, [{"x": x[at : at + 1]} for at in rest[: len(rest) // 2]])
    clean = answered(ready, [{"x": x[at : at + 1]} for at in rest[len(rest) // 2 :]])
    report(ready, clean, days)
    for snr in SNRS_DB:
        generator = np.random.default_rng(0)
        feeds: list[Feeds] = []
        for path in clips.values():
            sound, _ = soundfile.read(path, dtype="float64")
            noisy = np.clip(sounds.noise(sound, snr, generator=generator), -1, 1)
            feeds.append({"x": mfcc(noisy)[None, None].astype(np.float32)})
        drifted = answered(ready, feeds)
        found = [delays(each, clean, drifted, seeds) for each in (ready, outputs_alone(ready))]
        show(f"noise, {snr:g} dB", right(drifted, [int(y[at]) for at in clips]), found, seeds)


def mobilenet(folder: Path, slot: Path, days: int, seeds: int) -> None:
    """Images, with corruptions of ImageNet-C."""
    _, test = prepared.mobilenetv2(folder)
    x, y = test["x"], test["y"]
    order = np.random.default_rng(0).permutation(len(x))
    ready = watched(slot, [{"x": x[at : at + 1]} for at in order[: len(order) // 2]])
    held = order[len(order) // 2 :]
    clean = answered(ready, [{"x": x[at : at + 1]} for at in held])
    report(ready, clean, days)
    space = space_of_options(ImageOptions(mean=IMAGENET_MEAN, std=IMAGENET_STD), channels=3)
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            generator = np.random.default_rng(0)
            feeds = []
            for at in held[:PICTURES]:
                picture = images.corrupt(space.pixels(x[at : at + 1]), name, severity, generator=generator)
                feeds.append({"x": space.values(picture, x[at : at + 1])})
            drifted = answered(ready, feeds)
            rows = [delays(each, clean, drifted, seeds) for each in (ready, outputs_alone(ready))]
            show(f"{name}, severity {severity}", right(drifted, y[held[:PICTURES]].tolist()), rows, seeds)


def report(ready: Ready, clean: Sequence[Item], days: int) -> None:
    """Print what is watched, what it costs, and false alarms."""
    watch, policy = DriftWatch(ready), DriftPolicy()
    print(f"  watched: {', '.join(watch.scores)}; not readable: {', '.join(watch.unwatched) or 'none'}")
    print(f"  set for any false alarm within {policy.horizon_inputs:.0e} inputs with a chance of {policy.chance:g}")
    cost(ready, clean)
    false_alarms(ready, clean, days)


def main() -> None:
    """Measure the tasks whose bundle is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--dscnn", type=Path)
    parser.add_argument("--mobilenet", type=Path)
    parser.add_argument("--days", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    if given.dscnn:
        print("dscnn-kws")
        dscnn(given.zoo / "dscnn-kws", given.dscnn, given.days, given.seeds)
    if given.mobilenet:
        print("mobilenetv2-imagenet")
        mobilenet(given.zoo / "mobilenetv2-imagenet", given.mobilenet, given.days, given.seeds)


if __name__ == "__main__":
    main()
