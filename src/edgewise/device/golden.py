"""Golden outputs: what a variant gave when it was sealed, and must give here within the signed tolerance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgewise.bundle.tensors import read_tensor
from edgewise.contracts.manifest import GoldenOutputs
from edgewise.errors import GoldenError
from edgewise.runtimes.base import Array


def compare(golden: GoldenOutputs, index: int, found: Sequence[Array], expected: bytes, *, name: str) -> None:
    """Raise GoldenError unless the outputs for golden input `index` are within the tolerance; NaN never is.

    `name` is of what gave them: a variant, or a pipeline.
    """
    for output, due_output in zip(found, golden.samples[index], strict=True):
        due = read_tensor(expected, due_output.tensor)
        same = output.shape == due.shape
        distance = (
            float(np.max(np.abs(output.astype(np.float64) - due.astype(np.float64)), initial=0.0)) if same else np.inf
        )
        if not distance <= due_output.tolerance:
            raise GoldenError(
                f"{name}: {due_output.tensor.name} is {distance:.3g} from golden output {index}",
                required=f"at most {due_output.tolerance:.3g}",
                next_step="the device goes on with the bundle before; look at the release and this class of device",
            )
