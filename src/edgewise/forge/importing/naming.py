"""Names and order that depend on nothing but the graph, so that the same model gives the same bytes."""

from __future__ import annotations

import onnx

from edgewise.forge.importing.tensors import nested, subgraphs


def name_nodes(graph: onnx.GraphProto, prefix: str = "") -> None:
    """Name every node after the first tensor it writes, which no other node of its graph writes."""
    for node in graph.node:
        node.name = prefix + next((name for name in node.output if name), node.op_type)
        for position, inner in enumerate(subgraphs(node)):
            name_nodes(inner, f"{node.name}/{position}/")


def part_names(model: onnx.ModelProto) -> bool:
    """Give nodes of the same name names of their own, which ONNX Runtime insists on; say whether any had."""
    seen: set[str] = set()
    changed = False
    for position, node in enumerate(model.graph.node):
        if node.name and node.name in seen:
            node.name = f"{node.name}#{position}"
            changed = True
        seen.add(node.name)
    return changed


def sort_stored(model: onnx.ModelProto) -> None:
    """Put initializers and value infos in order of their names, and drop those of what is gone."""
    graph = model.graph
    graph.initializer.sort(key=lambda each: str(each.name))
    written = {name for node in graph.node for name in node.output}
    for position in reversed(range(len(graph.value_info))):
        if graph.value_info[position].name not in written:
            del graph.value_info[position]
    graph.value_info.sort(key=lambda each: str(each.name))
    used = {node.domain for node in nested(graph.node)} | {""}
    kept = {each.domain: each.version for each in model.opset_import if each.domain in used}
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, kept[domain]) for domain in sorted(kept))
