"""Normalise a checked model: one opset, constants and batch norms folded, attention fused, shapes known.

Runs in the sandbox. ONNX Runtime's own basic optimisations do most of the folding, so what is folded
here is what would be folded when it ships. Whatever came out is run against the model as it was.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx

from edgewise.errors import ExecutionError, ModelError
from edgewise.forge.importing import passes
from edgewise.forge.importing.affine import fold_affine
from edgewise.forge.importing.attention import fuse_attention, shapes_needed
from edgewise.forge.importing.gelu import DOMAIN, fuse_gelus
from edgewise.forge.importing.known_sizes import fold_known_sizes
from edgewise.forge.importing.naming import name_nodes, sort_stored
from edgewise.forge.importing.opset import at_target_opset, fix_constants, inline_functions
from edgewise.forge.importing.residuals import residual_sums
from edgewise.forge.importing.shapes import infer_shapes, static_shapes
from edgewise.forge.importing.tensors import nodes
from edgewise.forge.importing.trials import Trials, observed_shapes
from edgewise.forge.importing.windows import cascade_pools, convolve_blocks
from edgewise.runtimes.onnxruntime_ import optimised

_FOLDED = {"BatchNormalization": "batch norms folded", "Pad": "paddings absorbed", "Dropout": "dropouts removed"}
_STEPS = (fold_affine, passes.absorb_pads, passes.global_pools, passes.canonical_gemms)
# With static sizes it writes each linear layer of a transformer as Reshape, Gemm, Reshape.
_LEFT_OUT = ("MatMulAddFusion",)


def normalise(
    model: onnx.ModelProto, *, original: Path, shapes: dict[str, tuple[int, ...]]
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return the normalised model, and what was changed for the user to read.

    `original` is the user's model as a file. Raises ModelError where ONNX Runtime cannot load it, and
    where the result does not compute the same.
    """
    notes: list[str] = []
    plain = _folded(_written_plainly(model, shapes, notes), notes)
    watched = shapes_needed(plain)
    fusable = bool(watched) or any(node.op_type == "Erf" for node in plain.graph.node)
    trials = Trials(original, plain.graph.input, thorough=fusable)
    if not trials.trials:
        notes.append("not compared with the model as it was: it ran on none of the inputs made up for it")
    elif fusable:
        fused = _fused(plain, watched, trials, notes)
        if fused is not None:
            return fused, tuple(notes)
    _finish(plain)
    mismatch = trials.mismatch(plain.SerializeToString())
    if mismatch:
        raise ModelError(
            f"normalising changed what the model computes: {mismatch}",
            required="a graph that means the same to ONNX Runtime before and after constants are folded",
            next_step="please report this model; until then export it with another opset or exporter",
        )
    return plain, tuple(notes)


def _written_plainly(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]], notes: list[str]) -> onnx.ModelProto:
    plain = inline_functions(model)
    fix_constants(plain)
    plain, note = at_target_opset(plain)
    if note:
        notes.append(note)
    if static_shapes(plain, shapes):
        notes.append("dynamic axes made static: " + ", ".join(f"{name} {list(size)}" for name, size in shapes.items()))
    return plain


def _folded(model: onnx.ModelProto, notes: list[str]) -> onnx.ModelProto:
    before = Counter(node.op_type for node in nodes(model))
    model = _by_runtime(model)
    infer_shapes(model)
    if fold_known_sizes(model):
        passes.drop_unused(model)
        model = _by_runtime(model)
        infer_shapes(model)
    # Each may make way for another; none makes work for itself. All are taken, whatever the first one did.
    while any([step(model) for step in _STEPS]):  # noqa: C419
        passes.drop_unused(model)
        infer_shapes(model)
    cheaper = {
        "blocks of pixels convolved in place": convolve_blocks,
        "pyramids of pools made of small ones": cascade_pools,
    }
    for words, step in cheaper.items():
        if step(model):
            notes.append(words)
            passes.drop_unused(model)
            infer_shapes(model)
    after = Counter(node.op_type for node in nodes(model))
    for kind, words in _FOLDED.items():
        gone = before[kind] - after[kind]
        if gone > 0:
            notes.append(f"{words}: {gone}")
    return model


def _fused(
    plain: onnx.ModelProto, watched: tuple[str, ...], trials: Trials, notes: list[str]
) -> onnx.ModelProto | None:
    """Return the model with attention and Gelu fused, or None where there is none or it came out wrong."""
    fused = onnx.ModelProto()
    fused.CopyFrom(plain)
    seen = observed_shapes(plain, watched, trials.trials[0].feeds) if watched else {}
    attentions, gelus = fuse_attention(fused, seen), fuse_gelus(fused)
    if not attentions and not gelus:
        return None
    passes.drop_unused(fused)
    fused.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    _finish(fused)
    mismatch = trials.mismatch(fused.SerializeToString())
    if mismatch:
        notes.append(f"attention left as it was: fused, {mismatch}")
        return None
    if attentions:
        notes.append(f"attentions fused: {attentions}")
    if gelus:
        notes.append(f"Gelus fused: {gelus}")
    return fused


def _finish(model: onnx.ModelProto) -> None:
    residual_sums(model)
    infer_shapes(model)
    name_nodes(model.graph)
    sort_stored(model)


def _by_runtime(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(optimised(model.SerializeToString(), without=_LEFT_OUT))
    except ExecutionError as error:
        raise ModelError(
            error.found,
            required="a model that ONNX Runtime can run",
            next_step="check the export with onnxruntime.InferenceSession",
        ) from error
