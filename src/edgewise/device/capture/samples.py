"""Raw inputs for the next calibration: only with consent, and only for the operator's eyes.

Each sample is sealed to the operator's public key as it is written. The device has no key that opens it: whoever
takes the device learns nothing from the folder but how many samples of which size there are, and when they were
written. Consent is a file: without it nothing is kept, and what was kept before is deleted.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from numpy.lib import format as npy
from numpy.typing import NDArray

from edgewise.contracts.capture import SEALED_SAMPLE
from edgewise.device.trust.writing import refused, sync_folder, write_whole
from edgewise.keys.sealed import seal

CONSENT = "consent"
SUFFIX = ".sample"


class Samples:
    """The sealed samples of one device."""

    def __init__(self, folder: Path, receiver: X25519PublicKey, *, limit_bytes: int) -> None:
        """Take a folder of its own; what lies in it without consent is deleted. Raises OutputError."""
        self._folder, self._receiver, self._limit_bytes = folder, receiver, limit_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise refused(folder, error) from error
        self.has_consent_or_forgets()
        self._next = max((int(each.stem) for each in self._kept()), default=-1) + 1

    @property
    def has_consent(self) -> bool:
        """Whether the people whom the inputs are of have agreed."""
        return (self._folder / CONSENT).is_file()

    def consent(self, statement: str) -> None:
        """Keep samples from now on; `statement` says who agreed to what, and when. Raises OutputError."""
        write_whole(self._folder / CONSENT, statement.encode())

    def withdraw(self) -> None:
        """Keep nothing any more and delete what was kept; cut short, the next start goes on. Raises OutputError."""
        self._delete([self._folder / CONSENT])
        self._delete(self._kept())

    def has_consent_or_forgets(self) -> bool:
        """Return whether there is consent; where there is none, what was kept is deleted. Raises OutputError."""
        if self.has_consent:
            return True
        if kept := self._kept():
            self._delete(kept)
        return False

    def keep(self, inputs: Mapping[str, NDArray[Any]]) -> bool:
        """Seal and write one inference's inputs; the oldest go where there is no room. Returns whether it was kept.

        Nothing is kept without consent, nor a sample larger than the limit. Raises OutputError.
        """
        if not self.has_consent_or_forgets():
            return False
        sealed = seal(_npz(inputs), self._receiver, SEALED_SAMPLE)
        if len(sealed) > self._limit_bytes:
            return False
        kept = [(path, path.stat().st_size) for path in self._kept()]
        over = sum(size for _, size in kept) + len(sealed) - self._limit_bytes
        while over > 0:
            path, size = kept.pop(0)
            self._delete([path])
            over -= size
        write_whole(self._folder / f"{self._next:012d}{SUFFIX}", sealed)
        self._next += 1
        return self.has_consent_or_forgets()  # it may have been withdrawn meanwhile

    def _kept(self) -> list[Path]:
        """Return the samples, oldest first."""
        return sorted(path for path in self._folder.glob(f"*{SUFFIX}") if path.stem.isdigit())

    def _delete(self, paths: list[Path]) -> None:
        try:
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
            sync_folder(self._folder)
        except OSError as error:
            raise refused(self._folder, error) from error


def _npz(inputs: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the arrays as numpy's npz, whatever their names are."""
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as archive:
        for name, array in inputs.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                npy.write_array(stream, np.asarray(array), allow_pickle=False)
    return plain.getvalue()
