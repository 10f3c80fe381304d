"""Reads a prepared data folder back as the inputs a model takes, one sample at a time.

Shared by everything that feeds a model here, so that the peers calibrate on exactly the
samples that ours gets and the timings use real inputs. Needs numpy only.

An npz holds `x`, or one array per input name. Rows of text are padded to one length because
an npz holds rectangles; here they come back at their own length, without the padding.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

Feed = dict[str, np.ndarray]


def samples(npz: Path, input_names: list[str]) -> list[Feed]:
    """Every sample of `npz` as a feed of batch 1: {input name: [1, ...]}."""
    with np.load(npz) as data:
        arrays = {name: data[name] for name in data.files if name != "y"}
    if set(arrays) == {"x"} and len(input_names) == 1:
        arrays = {input_names[0]: arrays["x"]}
    if missing := set(input_names) - set(arrays):
        msg = f"{npz} has {sorted(arrays)}, the model needs {sorted(missing)} too"
        raise SystemExit(msg)
    return list(_rows({name: arrays[name] for name in input_names}))


def _rows(arrays: Feed) -> Iterator[Feed]:
    mask = arrays.get("attention_mask")
    for i in range(len(next(iter(arrays.values())))):
        row = {name: array[i : i + 1] for name, array in arrays.items()}
        if mask is not None:
            length = int(mask[i].sum())
            row = {name: np.ascontiguousarray(array[:, :length]) for name, array in row.items()}
        yield row
