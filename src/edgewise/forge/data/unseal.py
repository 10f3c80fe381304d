"""Samples that devices sealed, as a pool: opened with the operator's key and joined."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.lib import format as npy

from edgewise.contracts.capture import SEALED_SAMPLE
from edgewise.errors import DataError
from edgewise.forge.cache import write_atomically
from edgewise.keys.sealed import unseal
from edgewise.runtimes.base import Array

SUFFIX = ".sample"


def unseal_folder(folder: Path, key: X25519PrivateKey, output: Path) -> int:
    """Write an npz with an array per input, a row per sample, oldest first; return how many samples it holds.

    Raises DataError where there are none, where one cannot be opened, or where they are of several models.
    """
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    if not paths:
        raise DataError(
            f"{folder} holds no samples", required=f"files that end in {SUFFIX}", next_step="copy them from the device"
        )
    rows = [_opened(path, key) for path in paths]
    shapes = {tuple(sorted((name, each.dtype.str, each.shape[1:]) for name, each in row.items())) for row in rows}
    if len(shapes) > 1:
        raise DataError(
            f"the samples of {folder} differ in names, types or shapes",
            required="samples of one model",
            next_step="unseal those of each release by themselves",
        )
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:  # np.savez has names of its own
        for name in rows[0]:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                npy.write_array(stream, np.concatenate([row[name] for row in rows]), allow_pickle=False)
    write_atomically(output, whole.getvalue())
    return len(rows)


def _opened(path: Path, key: X25519PrivateKey) -> dict[str, Array]:
    try:
        plain = unseal(path.read_bytes(), key, SEALED_SAMPLE)
        with np.load(io.BytesIO(plain), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files if arrays[name].ndim}
    except DataError as error:
        raise DataError(f"{path}: {error.found}", required=error.required, next_step=error.next_step) from error
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: {error}", required="a sample as a device writes it") from error
