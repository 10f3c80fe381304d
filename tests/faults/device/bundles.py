"""Bundles that really run: a small network with its weights beside the graph, as the product seals it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from onnx import TensorProto, helper

from edgewise.bundle.tensors import place_arrays
from edgewise.bundle.write import Source, sealed_file
from edgewise.contracts.budget import Budget
from edgewise.contracts.manifest import GoldenOutput, GoldenOutputs, Manifest, TensorPlace
from tests.unit.bundle.bundles import archive, files

IN, HIDDEN, OUT = 4, 256, 2
GRAPH, WEIGHTS, GOLDEN = "variants/fp32/model.onnx", "variants/fp32/weights.bin", "variants/fp32/golden.bin"


def graph(places: tuple[TensorPlace, ...], *, extra: tuple[Any, ...] = (), location: str = "weights.bin") -> bytes:
    """Return x -> relu(x w) v -> y with the weights in another file."""
    initializers = []
    for place in places:
        tensor = TensorProto(name=place.name, data_type=TensorProto.FLOAT, dims=place.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", place.offset), ("length", place.size)):
            tensor.external_data.add(key=key, value=str(value))
        initializers.append(tensor)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "v"], ["y"]),
        *extra,
    ]
    made = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, IN])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, OUT])],
        initializers,
    )
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid("evil", 1)] if extra else [])]
    data: bytes = helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString()
    return data


def content(
    version: str, *, product: str = "kws", seed: int = 0, budget: Budget | None = None, is_wrong: bool = False
) -> tuple[Manifest, dict[str, Source]]:
    """Return the manifest and the files of a bundle; another seed moves a few of the weights a little.

    A wrong one takes one class for the other.
    """
    manifest, made = files(version=version, product=product)
    random = np.random.default_rng(7)
    arrays: dict[str, np.ndarray] = {
        "w": random.standard_normal((IN, HIDDEN)).astype(np.float32),
        "v": random.standard_normal((HIDDEN, OUT)).astype(np.float32) / HIDDEN,
    }
    arrays["v"][seed % HIDDEN] += np.float32(0.01 * seed)
    if is_wrong:
        arrays["v"] = np.ascontiguousarray(arrays["v"][:, ::-1])
    tensors, weights = place_arrays(arrays.items())
    made |= {GRAPH: graph(tensors), WEIGHTS: weights}
    found = expected(arrays)
    outputs, golden = place_arrays([("y", found)])
    made[GOLDEN] = golden
    variant = msgspec.structs.replace(
        manifest.variants[0],
        tensors=tensors,
        golden=GoldenOutputs(path=GOLDEN, samples=((GoldenOutput(tensor=outputs[0], tolerance=1e-3),),)),
    )
    manifest = msgspec.structs.replace(manifest, variants=(variant,), budget=budget or Budget())
    return restated(manifest, made), made


def restated(manifest: Manifest, made: dict[str, Source]) -> Manifest:
    """Return the manifest with the digests of changed files."""
    return msgspec.structs.replace(
        manifest, files=tuple(sealed_file(path, source) for path, source in sorted(made.items()))
    )


def sample() -> np.ndarray:
    """Return the golden input, as `tests.unit.bundle.bundles` has it."""
    random = np.random.default_rng(0)
    random.integers(-128, 128, (16, 40), np.int8)
    return random.standard_normal((1, IN)).astype(np.float32)


def expected(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return what the network answers to the golden input."""
    found = np.maximum(sample() @ arrays["w"], 0) @ arrays["v"]
    return np.asarray(found, np.float32)


def real(version: str, *, product: str = "kws", seed: int = 0, budget: Budget | None = None) -> bytes:
    """Return the bytes of a bundle that runs."""
    return archive(*content(version, product=product, seed=seed, budget=budget))
