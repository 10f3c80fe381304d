"""How often a pipeline as a whole is right, and how often its variants decide otherwise than its fallbacks would.

Stages that are good enough by themselves need not be so together: a gate that opens a little later keeps whole items
out. So the items go through all stages, once with the variants that a device begins with, once with the fallback of
each bundle, which is fp32 where there is one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np

from edgewise.bundle.stages import Values, variant_of
from edgewise.bundle.tensors import Array
from edgewise.contracts.base import Value
from edgewise.contracts.budget import Budget, LimitVerdict, judge
from edgewise.contracts.evidence import Figures, Interval
from edgewise.contracts.manifest import Manifest, Port
from edgewise.contracts.pipeline import Description
from edgewise.errors import ConfigError, DataError
from edgewise.forge.seal.chain import Chain, fallback_of
from edgewise.numerics.statistics import mcnemar, share_interval

LABELS, BEGINS = "y", "begins"
KEPT_OUT = -1
"""The label of an item that a gate should keep from the output."""
JUDGED = ("accuracy_drop", "flip_rate")
"""Limits of a budget that are judged on items."""

Decision = tuple[int, ...] | None
"""Top classes of the output, along its last axis; None where a gate kept the item out."""


class DataSection(Value, kw_only=True):
    """`[data]`: `items` is the path of an npz from the file's folder, one row an item in each of its arrays.

    They are named as what an item brings, and optionally `y` (class numbers, -1 for one that should be kept out) and
    `begins` (whether the item begins a new stream; without it, each does). `output` is what is decided by.
    """

    items: str
    output: str = ""


class WholeEvidence(Value, kw_only=True):
    """What was found. `digest` is of the items' file; scores are the share of right decisions, None without labels."""

    format_version: int = 1
    output: str
    items: int
    digest: str
    variants: dict[str, str]
    fallbacks: dict[str, str]
    flips: int
    flip_rate: float
    flip_interval: Interval
    gated_otherwise: int
    """Of the flips: a gate kept the item out with one and not with the other."""
    score: float | None = None
    fallback_score: float | None = None
    p_value: float | None = None
    """Of the two scores being of one truth, by McNemar's exact test."""
    verdicts: tuple[LimitVerdict, ...] = ()


def check_budget(budget: Budget, *, has_data: bool) -> None:
    """Raise ConfigError where a limit is asked for that nothing would measure."""
    asked = [name for name in JUDGED if name in budget.limits()]
    if asked and not has_data:
        raise ConfigError(
            f"[budget] of the whole asks for {', '.join(asked)}",
            required="a section [data] with items to measure it on",
            next_step="add one, or leave the limit to the stages' own budgets",
        )


def measure(
    section: DataSection,
    folder: Path,
    description: Description,
    manifests: Mapping[str, Manifest],
    *,
    inputs: tuple[Port, ...],
    budget: Budget,
    stages: Path,
) -> WholeEvidence:
    """Run all items through the stages below `stages`; `folder` is what the items' path starts from.

    Raises DataError for items that do not fit, ConfigError, ExecutionError.
    """
    output = section.output or description.outputs[-1]
    if output not in description.outputs:
        raise ConfigError(
            f"[data] output {output!r}", required=f"one of {', '.join(description.outputs)}", next_step="correct it"
        )
    path = folder / section.items
    data, arrays = _read(path)
    items = list(_items(path, arrays, inputs))
    labels = _labels(path, arrays, len(items))
    begins = np.asarray(arrays.get(BEGINS, np.ones(len(items), bool)), bool)
    if begins.shape != (len(items),):
        raise _wrong(path, f"{BEGINS!r} has the shape {list(begins.shape)}", f"[{len(items)}]")
    picks = (variant_of, fallback_of)
    chains = [Chain(description, manifests, stages, pick=pick) for pick in picks]
    decided = [
        [_decision(chain(item, begins=bool(new)).get(output)) for item, new in zip(items, begins, strict=True)]
        for chain in chains
    ]
    flips = [(mine, its) for mine, its in zip(*decided, strict=True) if mine != its]
    named = [{each.name: pick(each, manifests[each.name]).name for each in description.stages} for pick in picks]
    found = share_interval(len(flips), len(items))
    evidence = WholeEvidence(
        output=output,
        items=len(items),
        digest=hashlib.sha256(data).hexdigest(),
        variants=named[0],
        fallbacks=named[1],
        flips=len(flips),
        flip_rate=len(flips) / len(items),
        flip_interval=Interval(low=found.low, high=found.high, level=found.level),
        gated_otherwise=sum(None in pair for pair in flips),
    )
    if labels is not None:
        mine, its = ([_is_right(path, *each) for each in zip(column, labels, strict=True)] for column in decided)
        evidence = msgspec.structs.replace(
            evidence,
            score=sum(mine) / len(items),
            fallback_score=sum(its) / len(items),
            p_value=mcnemar(
                sum(a and not b for a, b in zip(mine, its, strict=True)),
                sum(b and not a for a, b in zip(mine, its, strict=True)),
            ),
        )
    figures = Figures(path=None, runtime="", score=evidence.score, flip_rate=evidence.flip_rate)
    asked = Budget(accuracy_drop=budget.accuracy_drop, flip_rate=budget.flip_rate)
    verdicts = judge(asked, figures, msgspec.structs.replace(figures, score=evidence.fallback_score))
    return msgspec.structs.replace(evidence, verdicts=verdicts)


def _read(path: Path) -> tuple[bytes, dict[str, Array]]:
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: np.asarray(found[name]) for name in found.files}
        return path.read_bytes(), arrays
    except (OSError, ValueError, AttributeError, EOFError) as error:
        raise DataError(f"{path}: {error}", required="an npz of the items", next_step="correct [data] items") from error


def _items(path: Path, arrays: Mapping[str, Array], inputs: tuple[Port, ...]) -> Iterator[Values]:
    """Yield each row as the values that an item brings, in the ports' shapes."""
    missing = [port.name for port in inputs if port.name not in arrays]
    counts = {len(arrays[port.name]) if arrays[port.name].ndim else 0 for port in inputs if port.name in arrays}
    if missing or len(counts) != 1 or counts == {0}:
        found = f"no {', '.join(missing)}" if missing else f"rows: {sorted(counts)}"
        raise _wrong(path, found, f"equally many rows of {', '.join(port.name for port in inputs)}")
    for row in range(counts.pop()):
        yield {port.name: _fitted(path, port, arrays[port.name][row]) for port in inputs}


def _fitted(path: Path, port: Port, row: Array) -> Array:
    """Return a row in a port's shape; an axis of one at the front, the batch, need not be in the file."""
    array = row[None] if row.ndim == len(port.shape) - 1 else row
    fits = array.ndim == len(port.shape) and all(b in {None, a} for a, b in zip(array.shape, port.shape, strict=True))
    if not fits or array.dtype.name != port.dtype:
        due = ", ".join("?" if size is None else str(size) for size in port.shape)
        raise _wrong(path, f"a row of {port.name!r} is {row.dtype}{list(row.shape)}", f"{port.dtype}[{due}]")
    return np.ascontiguousarray(array)


def _labels(path: Path, arrays: Mapping[str, Array], count: int) -> list[int] | None:
    if LABELS not in arrays:
        return None
    labels = arrays[LABELS]
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise _wrong(path, f"{LABELS!r} is {labels.dtype}{list(labels.shape)}", f"whole numbers, [{count}]")
    return [int(each) for each in labels]


def _decision(output: Array | None) -> Decision:
    if output is None:
        return None
    return tuple(int(each) for each in np.atleast_1d(np.argmax(np.atleast_1d(output), axis=-1)).ravel())


def _is_right(path: Path, decision: Decision, label: int) -> bool:
    if decision is None or label == KEPT_OUT:
        return decision is None and label == KEPT_OUT
    if len(decision) != 1:
        raise _wrong(path, f"{LABELS!r} where the output holds {len(decision)} decisions", "an output of one row")
    return decision[0] == label


def _wrong(path: Path, found: str, required: str) -> DataError:
    return DataError(f"{path}: {found}", required=required, next_step="correct the items")
