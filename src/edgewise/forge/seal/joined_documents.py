"""The card and the bill of materials of a bundle of several stages; each stage's own lie in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgewise.bundle.names import BOM, CARD
from edgewise.bundle.stages import variant_of
from edgewise.contracts.manifest import Manifest
from edgewise.contracts.pipeline import ModelStage, PipelineManifest
from edgewise.forge.seal.bom import document
from edgewise.forge.seal.joined_accuracy import WholeEvidence


def card(manifest: PipelineManifest, stages: Mapping[str, Manifest], evidence: WholeEvidence | None) -> bytes:
    """Return the model card: what the stages are and how they are joined. Markdown."""
    pipeline = manifest.pipeline
    brought, made = (", ".join(each.name for each in ports) for ports in (manifest.inputs, manifest.outputs))
    lines = [
        f"# {manifest.product} {manifest.version}",
        "",
        f"{len(pipeline.stages)} models that run as one pipeline, within {pipeline.deadline_ms:g} ms.",
        "",
        f"An item brings {brought}; it is given {made}.",
        "",
        "| stage | bundle | variant | verdict | is given | runs | mailbox | where |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(each, stages[each.name]) for each in pipeline.stages),
        "",
        f"Each stage has a card of its own, `STAGE/{CARD}`.",
        "",
        *_accuracy(evidence),
        "",
    ]
    return "\n".join(lines).encode()


def _accuracy(evidence: WholeEvidence | None) -> list[str]:
    if evidence is None:
        return ["Accuracy was judged stage by stage: nothing here says how often the pipeline as a whole is right."]
    low, high = evidence.flip_interval.low, evidence.flip_interval.high
    text = (
        f"On {evidence.items} items `{evidence.output}` decides otherwise than with every stage's fallback "
        f"{evidence.flips} times: {evidence.flip_rate:.2%} ({low:.2%} to {high:.2%}); {evidence.gated_otherwise} times "
        "because a gate goes the other way."
    )
    found = [text]
    if evidence.score is not None and evidence.fallback_score is not None:
        found += [
            "",
            f"It is right for {evidence.score:.2%} of them; with the fallbacks {evidence.fallback_score:.2%}.",
        ]
    return [*found, *(f"- {each.limit}: {each.verdict}, at most {each.required:g}" for each in evidence.verdicts)]


def _row(stage: ModelStage, its: Manifest) -> str:
    variant = variant_of(stage, its)
    when = "always" if stage.when is None else f"{stage.when.value} >= {stage.when.at_least:g}"
    given = ", ".join(f"{name} = {source}" for name, source in stage.inputs.items())
    cells = (stage.name, f"{its.product} {its.version}", variant.name, variant.verdict, given, when, stage.mailbox)
    return f"| {' | '.join(str(each).replace('|', ' ') for each in cells)} | {stage.place} |"


def bom(manifest: PipelineManifest, stages: Mapping[str, Manifest]) -> bytes:
    """Return the CycloneDX document: the product, its stages, and where the document of each stage lies."""
    whole = f"pipeline:{manifest.product}@{manifest.version}"
    digests = {each.path: each.digest for each in manifest.files}
    return document(
        {"bom-ref": whole, "name": manifest.product, "version": manifest.version},
        [_component(each, stages[each.name], digests) for each in manifest.pipeline.stages],
        [{"ref": whole, "dependsOn": sorted(f"stage:{each.name}" for each in manifest.pipeline.stages)}],
    )


def _component(stage: ModelStage, its: Manifest, digests: Mapping[str, str]) -> dict[str, Any]:
    path = f"{stage.name}/{BOM}"
    return {
        "type": "machine-learning-model",
        "bom-ref": f"stage:{stage.name}",
        "name": its.product,
        "version": its.version,
        "hashes": [{"alg": "SHA-256", "content": stage.bundle}],
        "externalReferences": [
            {
                "type": "bom",
                "url": path,
                "hashes": [{"alg": "SHA-256", "content": digests[path]}],
            }
        ],
    }
