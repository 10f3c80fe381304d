"""The model card: what a person reads before they let a bundle onto a device. Markdown."""

from __future__ import annotations

from edgewise.contracts.manifest import Variant
from edgewise.contracts.run import Run
from edgewise.contracts.verification import Verification

_UNKNOWN = "unavailable"


def card(
    *, product: str, version: str, run: Run, variants: tuple[Variant, ...], verification: Verification | None
) -> bytes:
    """Return the card. A figure that is not known says so."""
    lines = [
        f"# {product} {version}",
        "",
        f"A {run.task} model for the target `{run.target}`, judged by {run.metric}.",
        "",
        f"Made from the fp32 model with the digest `{run.model_digest}`.",
        "",
        "## Variants",
        "",
        f"| variant | precision | {run.metric} | flips | p50 ms | p99 ms | peak MiB | size MiB | energy mJ | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_row(each) for each in variants),
        "",
        "Accuracy is that of the test split where the run had one; latency is of one inference on the machine below.",
        "",
        "## Budget",
        "",
        *_budget(variants[0]),
        "",
        "## Data",
        "",
        f"{run.data.calibrate} samples to calibrate, {run.data.select} to select by, {run.data.test} to test.",
        "",
        f"Digest of the first two: `{run.data.digest}`.",
        "",
        "## Verification",
        "",
        *_verification(verification),
        "",
        "## Limits",
        "",
        *(f"* {_plain(each)}" for each in run.warnings),
        "* The figures hold for data like that of the splits above; the manifest's drift cut-offs tell others.",
        "",
        "## Machine",
        "",
        f"{_plain(run.environment.processor)}, {run.environment.cores} cores, {run.environment.threads} threads, "
        f"{_plain(run.environment.system)}; "
        + ", ".join(f"{name} {number}" for name, number in sorted(run.environment.versions.items()))
        + ".",
        "",
    ]
    return "\n".join(lines).encode()


def _row(each: Variant) -> str:
    found = each.figures
    flips = _UNKNOWN if found.flip_rate is None else f"{found.flip_rate:.2%}"
    numbers = (found.latency_p50_ms, found.latency_p99_ms, found.peak_memory_mib, found.size_mib, found.energy_mj)
    cells = [each.name, each.precision, _number(found.score), flips, *map(_number, numbers), each.verdict]
    return f"| {' | '.join(_plain(str(cell)) for cell in cells)} |"


def _budget(chosen: Variant) -> list[str]:
    if not chosen.verdicts:
        return ["No limits were set."]
    return [
        "| limit | at most | found | verdict |",
        "|---|---|---|---|",
        *(
            f"| {each.limit} | {_number(each.required)} | {_number(each.found)} | {each.verdict} |"
            for each in chosen.verdicts
        ),
    ]


def _verification(found: Verification | None) -> list[str]:
    if found is None:
        return ["This bundle was sealed without one."]
    grades: dict[str, int] = {}
    for section in found.sections:
        for finding in section.findings:
            grades[finding.grade] = grades.get(finding.grade, 0) + 1
    counted = ", ".join(f"{count} {grade}" for grade, count in sorted(grades.items()))
    return [f"Suite {found.suite} on {found.samples} samples: **{found.verdict}** ({counted})."]


def _number(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.4g}"


def _plain(text: str) -> str:
    """Return text of unknown origin on one line, without what would break a table."""
    return "".join(each if each.isprintable() else " " for each in text).replace("|", "\\|").replace("<", "&lt;")
