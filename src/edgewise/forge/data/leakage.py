"""Whether samples of one split turn up in another: then the evidence is too good."""

from __future__ import annotations

from edgewise.forge.data.labels import Labelled

MOST = 5000
"""Samples looked at on either side: hashing more takes seconds."""


def leakage(calibrate: Labelled, test: Labelled, *, most: int = MOST) -> str | None:
    """Return a warning where samples of `test` are also in `calibrate`, byte for byte; else None."""
    seen = {calibrate.fingerprint(index) for index in _spread(len(calibrate), most)}
    looked = _spread(len(test), most)
    shared = [index for index in looked if test.fingerprint(index) in seen]
    if not shared:
        return None
    first = ", ".join(map(str, shared[:5])) + (", ..." if len(shared) > 5 else "")
    return (
        f"{len(shared)} of {len(looked)} samples of {test.name} are also in {calibrate.name} (number {first}): "
        "what is measured on them says less about new data; remove them from one of the two"
    )


def _spread(length: int, most: int) -> range:
    return range(0, length, -(-length // most)) if length > most else range(length)
