"""The same sample twice: between splits, where it makes evidence too good, and within one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.verification import Finding, Grade
from edgewise.forge.curate.profile import Profile

NEAR = 0.02
"""1 - correlation of two signatures below which samples may be near-duplicates."""
LEAKED = 0.005
"""Share of a split that may be in another before figures on it are too good to use."""
_TYPICAL = 0.05
"""And below this share of the typical distance between neighbours, which is small everywhere in smooth data."""
_BLOCK = 512
_SHOWN = 5


def duplicates(splits: Sequence[Profile]) -> list[Finding]:
    """Return what turns up twice, for every pair of splits and within each."""
    found = []
    for at, one in enumerate(splits):
        for other in splits[at + 1 :]:
            found += [_leaked(one, other), _near(one, other)]
        found.append(_repeated(one))
    return found


def nearest(rows: NDArray[np.float32], others: NDArray[np.float32] | None = None) -> NDArray[np.float64]:
    """Return for every row 1 - its largest cosine to another one: of `others`, or of the rows themselves [rows]."""
    found = np.full(len(rows), np.inf)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        cosines = block @ (rows if others is None else others).T
        if others is None:
            cosines[np.arange(len(block)), np.arange(start, start + len(block))] = -1.0
        if cosines.size:
            found[start : start + len(block)] = 1 - cosines.max(axis=1)
    return found


def _leaked(one: Profile, other: Profile) -> Finding:
    seen = set(one.fingerprints)
    shared = [index for index, each in zip(other.indices, other.fingerprints, strict=True) if each in seen]
    share = len(shared) / max(1, len(other.indices))
    return Finding(
        name="data.leakage",
        subject=f"{one.name} / {other.name}",
        grade=Grade.FAIL if share > LEAKED else Grade.FLAG if shared else Grade.PASS,
        value=share,
        limit=LEAKED,
        detail=f"{_of(shared, other)} are also in {one.name}{_numbers(shared)}",
        advice="remove them from one of the two: figures measured on them say less about new data" if shared else "",
    )


def _near(one: Profile, other: Profile) -> Finding:
    """Return samples of `other` that differ from one of `one` by far less than samples of a split do."""
    gaps = nearest(one.signatures)
    usual = float(np.median(gaps[np.isfinite(gaps)])) if len(gaps) > 1 else 0.0
    limit = min(NEAR, _TYPICAL * usual)
    exact = set(one.fingerprints)
    close = np.less(nearest(other.signatures, one.signatures), limit).tolist()
    blanks = np.logical_not(other.signatures.any(axis=1)).tolist()
    at = [
        index
        for index, near, blank, each in zip(other.indices, close, blanks, other.fingerprints, strict=True)
        if near and not blank and each not in exact
    ]
    return Finding(
        name="data.near_duplicates",
        subject=f"{one.name} / {other.name}",
        grade=Grade.FLAG if at else Grade.PASS,
        value=len(at) / max(1, len(other.indices)),
        detail=f"{_of(at, other)} nearly equal one of {one.name}{_numbers(at)}",
        advice="look whether they are copies (cropped, compressed, of one recording) and keep one" if at else "",
    )


def _repeated(one: Profile) -> Finding:
    first: set[bytes] = set()
    again = []
    for index, each in zip(one.indices, one.fingerprints, strict=True):
        if each in first:
            again.append(index)
        first.add(each)
    return Finding(
        name="data.duplicates",
        subject=one.name,
        grade=Grade.FLAG if again else Grade.PASS,
        value=len(again) / max(1, len(one.indices)),
        detail=f"{_of(again, one)} repeat an earlier one{_numbers(again)}",
        advice="they count twice: keep one of each" if again else "",
    )


def _of(indices: Sequence[int], split: Profile) -> str:
    return f"{len(indices)} of {len(split.indices)} samples of {split.name}"


def _numbers(indices: Sequence[int]) -> str:
    more = ", ..." if len(indices) > _SHOWN else ""
    return f" (number {', '.join(map(str, indices[:_SHOWN]))}{more})" if indices else ""
