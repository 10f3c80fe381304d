"""The bill of materials: CycloneDX 1.6 with a model card (ML-BOM), as JSON.

cyclonedx-python-lib has no model cards, so the document is written here; its schema is what the tests hold it to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from edgewise import __version__
from edgewise.contracts.evidence import Figures
from edgewise.contracts.manifest import SealedFile, Variant
from edgewise.contracts.run import Run

SPECIFICATION = "1.6"


def bom(*, product: str, version: str, run: Run, variants: tuple[Variant, ...], files: tuple[SealedFile, ...]) -> bytes:
    """Return the document: the product as a machine-learning model, its variants and their files, what made them."""
    digests = {each.path: each for each in files}
    model_ref = f"model:{product}@{version}"
    components = [
        *(_variant(each, version, digests) for each in variants),
        *(_library(name, number) for name, number in sorted(run.environment.versions.items())),
    ]
    dependencies = [
        {"ref": model_ref, "dependsOn": sorted(_ref(each) for each in variants)},
        *(
            {"ref": _ref(each), "dependsOn": [f"library:{each.runtime}"]}
            for each in variants
            if each.runtime in run.environment.versions
        ),
    ]
    subject = {"bom-ref": model_ref, "name": product, "version": version, "modelCard": _card(run)}
    return document(subject, components, dependencies)


def document(
    subject: dict[str, Any], components: Sequence[dict[str, Any]], dependencies: Sequence[dict[str, Any]]
) -> bytes:
    """Return a CycloneDX document about `subject`, a machine-learning model."""
    return msgspec.json.format(
        msgspec.json.encode(
            {
                "$schema": f"http://cyclonedx.org/schema/bom-{SPECIFICATION}.schema.json",
                "bomFormat": "CycloneDX",
                "specVersion": SPECIFICATION,
                "version": 1,
                "metadata": {
                    "tools": {"components": [{"type": "application", "name": "edgewise", "version": __version__}]},
                    "component": {"type": "machine-learning-model", **subject},
                },
                "components": components,
                "dependencies": dependencies,
            }
        ),
        indent=1,
    )


def _card(run: Run) -> dict[str, Any]:
    figures: list[Figures] = [run.reference, *([run.chosen] if run.chosen is not None else [])]
    return {
        "modelParameters": {
            "task": run.task,
            "datasets": [
                {
                    "type": "dataset",
                    "name": "calibration and selection",
                    "contents": {"properties": [{"name": "sha256", "value": run.data.digest}]},
                    "description": f"{run.data.calibrate} samples to calibrate, {run.data.select} to select by",
                }
            ],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [
                _metric(kind, value, part)
                for part, each in zip(("fp32", "chosen variant"), figures, strict=False)
                for kind, value in (
                    (run.metric, each.score),
                    ("flip rate", each.flip_rate),
                    ("latency p50 (ms)", each.latency_p50_ms),
                    ("latency p99 (ms)", each.latency_p99_ms),
                    ("peak memory (MiB)", each.peak_memory_mib),
                    ("size (MiB)", each.size_mib),
                    ("energy (mJ)", each.energy_mj),
                )
                if value is not None
            ]
        },
        "considerations": {"technicalLimitations": [*run.warnings, f"measured on the target {run.target}"]},
    }


def _metric(kind: str, value: float, part: str) -> dict[str, str]:
    return {"type": kind, "value": f"{value:.6g}", "slice": part}


def _variant(each: Variant, version: str, digests: dict[str, SealedFile]) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": _ref(each),
        "name": each.name,
        "version": version,
        "properties": [
            {"name": "edgewise:runtime", "value": each.runtime},
            {"name": "edgewise:precision", "value": each.precision},
            {"name": "edgewise:device_class", "value": each.device_class},
            {"name": "edgewise:recipe_digest", "value": each.recipe_digest},
        ],
        "components": [
            {
                "type": "file",
                "name": path,
                "hashes": [{"alg": "SHA-256", "content": digests[path].digest}],
            }
            for path in (each.model, each.weights)
            if path is not None
        ],
    }


def _library(name: str, number: str) -> dict[str, str]:
    return {
        "type": "library",
        "bom-ref": f"library:{name}",
        "name": name,
        "version": number,
        "purl": f"pkg:pypi/{name}@{number}",
    }


def _ref(each: Variant) -> str:
    return f"variant:{each.name}"
