"""Golden outputs: what a variant gave when it was sealed, and must give here within the signed tolerance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgewise.bundle.tensors import read_tensor
from edgewise.contracts.manifest import Variant
from edgewise.errors import GoldenError
from edgewise.runtimes.base import Array


def compare(variant: Variant, index: int, found: Sequence[Array], expected: bytes) -> None:
    """Raise GoldenError unless the outputs for golden input `index` are within the tolerance; NaN never is."""
    sample = variant.golden.samples[index]
    for output, golden in zip(found, sample, strict=True):
        due = read_tensor(expected, golden.tensor)
        same = output.shape == due.shape
        distance = (
            float(np.max(np.abs(output.astype(np.float64) - due.astype(np.float64)), initial=0.0)) if same else np.inf
        )
        if not distance <= golden.tolerance:
            raise GoldenError(
                f"{variant.name}: {golden.tensor.name} is {distance:.3g} from golden output {index}",
                required=f"at most {golden.tolerance:.3g}",
                next_step="the device goes on with the bundle before; look at the release and this class of device",
            )
