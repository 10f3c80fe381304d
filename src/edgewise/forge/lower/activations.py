"""Float activations that the runtime would fuse by itself, were they not behind integers."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from edgewise.forge.graph import Graph
from edgewise.forge.regions import Region


class Silus(msgspec.Struct, frozen=True, kw_only=True):
    """SiLUs (x * sigmoid(x)) to write as one node."""

    inputs: Mapping[str, str]
    """x, by the name of the region of the Mul."""
    sigmoids: frozenset[str]
    """Regions of the Sigmoids, which go with them."""


def silus_behind_integers(
    graph: Graph, regions: tuple[Region, ...], planned: Collection[str], integers: Collection[str]
) -> Silus:
    """Return the SiLUs in float whose input is made by a region in `integers`; `planned` regions are not in float.

    ONNX Runtime makes one QuickGelu of Sigmoid and Mul, but gives each reader of an integer tensor a
    DequantizeLinear of its own first: then they have different inputs and stay two passes over memory behind
    two more (docs/explanation/fusion.md).
    """
    by_node = {index: region for region in regions for index in region.nodes}
    producers = {region.output: region for region in regions}
    inputs, sigmoids = {}, set()
    for sigmoid in regions:
        if sigmoid.op != "Sigmoid" or sigmoid.name in planned:
            continue
        (x,) = sigmoid.inputs
        made, reader = producers.get(x), graph.sole_consumer(sigmoid.output)
        if made is None or made.name not in integers or reader is None:
            continue
        product = by_node[reader]
        if product.op == "Mul" and product.name not in planned and set(product.inputs) == {x, sigmoid.output}:
            inputs[product.name] = x
            sigmoids.add(sigmoid.name)
    return Silus(inputs=inputs, sigmoids=frozenset(sigmoids))
