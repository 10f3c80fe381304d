"""The sections of the report, in order. Each says so where it has nothing to show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from edgewise.contracts.budget import Verdict
from edgewise.contracts.evidence import Candidate, FlipEvidence, Status
from edgewise.contracts.recipe import Format
from edgewise.contracts.run import Run
from edgewise.forge.report import bars
from edgewise.forge.report.figures import (
    MISSING,
    REFERENCE,
    columns,
    decibels,
    is_folded,
    limit_name,
    limit_value,
    nearest,
    number,
    rows,
    score,
    speedup,
    split_note,
    sqnr,
)
from edgewise.forge.report.front import front
from edgewise.forge.report.histograms import histogram
from edgewise.forge.report.markup import Child, Html, join, table, tag
from edgewise.forge.report.pictures import Picture, drawn

_MOST_OTHERS = 3
_MOST_HISTOGRAMS = 9


def verdict(run: Run) -> Html:
    """Return the answer: does it fit, by how much, and what to do where it does not."""
    if run.chosen is None:
        kind, said = "fail", "Nothing fits the budget"
    elif run.chosen.name == REFERENCE:
        kind, said = "unknown", "fp32 stays: no variant that holds the budget is faster"
    elif any(each.verdict is Verdict.UNKNOWN for each in run.budget.verdicts):
        kind, said = "unknown", f"{run.chosen.name} fits, as far as could be measured"
    elif not run.budget.verdicts:
        kind, said = "", f"{run.chosen.name} (no limit was asked for)"
    else:
        kind, said = "", f"{run.chosen.name} fits the budget"
    if run.chosen is not None and is_folded(run.chosen):
        said += " (folded and fused, nothing is quantized)"
    words = f"{run.task} on {run.target}, effort {run.effort}, {_threads(run)}"
    return tag(
        "section",
        tag("h1", PurePath(run.model).name),
        tag("div", tag("span", said, class_="said"), tag("span", f"  {words}", class_="small")),
        _headline(run) if run.chosen is not None else None,
        _gauges(run),
        _advice(run) if run.chosen is None else None,
        class_=f"verdict {kind}".rstrip(),
    )


def figures(run: Run) -> Html:
    """Return the comparison of fp32, the chosen variant and others."""
    shown = columns(run, _MOST_OTHERS)
    heads = [tag("span", each.word, tag("b", each.name)) for each in shown]
    found = [(label, *cells) for label, cells in rows(run.metric, shown)]
    kind = "figures" if run.chosen is not None else "figures none"
    return _section("Figures", split_note(run), table(["", *heads], found, class_=kind))


def pareto(run: Run) -> Html:
    """Return the front of what was found."""
    measured = sum(each.status is Status.MEASURED for each in run.candidates)
    screened = sum(each.status is Status.SCREENED for each in run.candidates)
    words = (
        f"{measured} candidates were built, judged and timed (filled; the whisker is the interval of the speedup), "
        f"{screened} were judged only (rings below). The line is the front: nothing found is both faster and closer."
    )
    return _section("Speed against distance to fp32", words, front(run) or _missing("no variant was measured"))


def accuracy(run: Run) -> Html:
    """Return which region costs what."""
    known = [each for each in run.regions if each.divergence is not None]
    words = "Each region quantized alone, all others in fp32, on samples of the select split; the worst first."
    body = bars.sensitivity(run.regions) if known else _missing("sensitivity was not measured (effort fast skips it)")
    return _section("What each region costs in accuracy", words, body)


def time(run: Run) -> Html:
    """Return where the time goes."""
    known = [each for each in run.regions if each.time_fp32_us or each.time_variant_us]
    other = _other_runtime(run)
    words = join(
        [
            "From the runtime's own profile on the target; the longest first.",
            tag("span", class_="key bar before"),
            "fp32" if other is None else f"fp32 on {run.reference.runtime}",
            tag("span", class_="key bar after"),
            "variant" if other is None else f"variant on {other}",
        ]
    )
    body = bars.times(run.regions) if known else _missing("the runtime gave no profile")
    asked = [each for each in run.regions if not each.format.startswith("fp")]
    told = [each for each in asked if each.runs_quantized is not None]
    really = sum(bool(each.runs_quantized) for each in told)
    note = f"{really} of {len(told)} regions with a quantized format ran in an integer kernel." if told else None
    return _section("Where the time goes", words, body, tag("p", note, class_="small") if note else None)


def flips(run: Run, pictures: Sequence[Picture]) -> Html:
    """Return the samples whose answer changed, those that fp32 was most sure of first."""
    if not run.flips:
        none = run.chosen is not None and run.chosen.flip_rate == 0
        return _section("Flips", "", _missing("no answer changed" if none else f"single flips are {MISSING}"))
    shown = [
        tag("figure", drawn(each), tag("figcaption", *(tag("span", line) for line in each.captions)))
        for each in pictures
    ]
    found = [_flip_row(each) for each in run.flips]
    listing = table(["sample", "fp32", "variant", "label", "fp32 margin"], found)
    words = "Test samples whose top answer changed; those of which fp32 was most sure come first."
    if not shown:
        return _section("Flips", words, listing)
    return _section(
        "Flips",
        words,
        tag("div", *shown, class_="pictures"),
        tag("details", tag("summary", f"all {len(found)} as a table"), listing),
    )


def ranges(run: Run) -> Html:
    """Return the histograms with the ranges that were chosen."""
    words = "Values seen in calibration (counts on a logarithmic scale) and the range that was chosen."
    drawings = [histogram(each) for each in run.histograms]
    if not drawings:
        return _section("Ranges", words, _missing("the variant has no ranges fixed at calibration"))
    shown, rest = drawings[:_MOST_HISTOGRAMS], drawings[_MOST_HISTOGRAMS:]
    more = tag("details", tag("summary", f"{len(rest)} more"), tag("div", *rest, class_="histograms")) if rest else None
    return _section("Ranges", words, tag("div", *shown, class_="histograms"), more)


def agreement(run: Run) -> Html:
    """Return how a second runtime executes the same file."""
    against = _other_runtime(run) or "the first"
    words = f"The same file executed by another runtime, against {against}, on the test split."
    found: list[tuple[Child, ...]] = [
        (
            f"{each.runtime} {each.version}",
            decibels(each.sqnr_db),
            number(each.flip_rate, "%"),
            MISSING if each.speedup is None else f"{each.speedup:.2f}x",
            each.reason,
        )
        for each in run.agreement
    ]
    head = ["runtime", "SQNR", "flips", "speed over fp32 on the first", "note"]
    return _section(
        "A second runtime",
        words,
        table(head, found) if found else _missing("the variant was not executed by a second runtime"),
    )


def candidates(run: Run) -> Html:
    """Return all that was tried: failures with their reasons in sight, the rest to unfold."""
    failed = [each for each in run.candidates if each.status is Status.FAILED]
    rest = [each for each in run.candidates if each.status is not Status.FAILED]
    parts: list[Child] = []
    if failed:
        parts.append(tag("h3", f"{len(failed)} failed"))
        parts.append(table(["candidate", "reason"], [(each.name, each.reason or "unknown") for each in failed]))
    head = ["candidate", "status", "formats", "score", "flips", "SQNR", "distance", "speedup", "size"]
    parts.append(
        tag("details", tag("summary", f"all {len(rest)} others"), table(head, [_candidate_row(each) for each in rest]))
    )
    words = f"Figures of the {run.data.select} samples of the select split; the test split is opened once, at the end."
    return _section("Candidates", words, *parts)


def provenance(run: Run) -> Html:
    """Return what it takes to believe the figures, and to get them again."""
    here = run.environment
    facts: list[tuple[str, str]] = [
        ("model", f"{run.model} (SHA-256 {run.model_digest})"),
        ("data", f"{run.data.calibrate} calibrate, {run.data.select} select, {run.data.test} test samples"),
        ("data digest", f"SHA-256 {run.data.digest}"),
        ("calibration", f"selection: {run.data.selection}"),
        ("seed", str(here.seed)),
        ("processor", f"{here.processor} ({here.machine}), {here.cores} cores, {_threads(run)}"),
        ("memory", number(here.memory_mib, "MiB")),
        ("system", f"{here.system}, Python {here.python}"),
        ("versions", ", ".join(f"{key} {value}" for key, value in here.versions.items())),
        ("load average", MISSING if here.load_average is None else f"{here.load_average:.2f}"),
        ("seconds", ", ".join(f"{key} {value:.1f}" for key, value in run.seconds.items())),
    ]
    pairs = [each for key, value in facts for each in (tag("dt", key), tag("dd", value))]
    warnings = tag("ul", *(tag("li", each) for each in run.warnings), class_="notes") if run.warnings else None
    return _section(
        "Where the figures come from",
        "",
        *((tag("h3", "Warnings"), warnings, tag("h3", "Environment")) if warnings else ()),
        tag("dl", *pairs),
    )


def _headline(run: Run) -> Html | None:
    if run.chosen is None:
        return None
    before, after = run.reference, run.chosen
    shown = [
        (MISSING if after.speedup is None else f"{after.speedup:.2f}x", "speed over fp32"),
        (number(after.flip_rate, "%"), "flips"),
        (score(after), f"{run.metric or 'score'} (fp32 {score(before)})"),
        (number(after.latency_p50_ms, "ms"), f"latency p50 (fp32 {number(before.latency_p50_ms, 'ms')})"),
        (number(after.size_mib, "MiB"), f"size (fp32 {number(before.size_mib, 'MiB')})"),
    ]
    return tag("div", *(tag("div", tag("b", value), tag("span", label)) for value, label in shown), class_="headline")


def _gauges(run: Run) -> Html | None:
    """Return a card per limit: of the chosen variant, or of whatever came nearest where none was."""
    if run.budget.verdicts:
        return tag("div", *(bars.gauge(each) for each in run.budget.verdicts), class_="cards")
    near = nearest(run)
    return tag("div", *(bars.gauge(each, by=name) for each, name in near), class_="cards") if near else None


def _advice(run: Run) -> Html:
    lines = []
    if run.budget.verdicts:
        for each, name in nearest(run):
            lines.append(f"closest in {limit_name(each.limit)}: {name} with {limit_value(each.limit, each.found)}")
    return join(
        [
            tag("h3", "What to try") if lines or run.advice else None,
            tag("ul", *(tag("li", each) for each in (*lines, *run.advice)), class_="notes"),
        ]
    )


def _flip_row(flip: FlipEvidence) -> tuple[Child, ...]:
    target = MISSING if flip.target is None else flip.target
    return (flip.index, flip.reference_answer, flip.variant_answer, target, number(flip.margin))


def _candidate_row(each: Candidate) -> tuple[Child, ...]:
    formats = sorted({region.format.value for region in each.recipe.regions if region.format is not Format.FP32})
    return (
        each.name,
        tag("span", each.status.value, class_="chip plain"),
        ", ".join(formats) or "fp32",
        score(each),
        number(each.flip_rate, "%"),
        sqnr(each),
        number(each.divergence),
        speedup(each) if each.speedup is not None else "not timed",
        number(each.size_mib, "MiB") if each.size_mib is not None else "not timed" if each.speedup is None else MISSING,
    )


def _section(title: str, words: Child, *children: Child) -> Html:
    return tag("section", tag("h2", title), tag("p", words) if words else None, *children)


def _missing(words: str) -> Html:
    return tag("p", words[:1].upper() + words[1:] + ".", class_="small")


def _other_runtime(run: Run) -> str | None:
    """Return the runtime of the chosen variant where it is not that of fp32."""
    return run.chosen.runtime if run.chosen is not None and run.chosen.runtime != run.reference.runtime else None


def _threads(run: Run) -> str:
    return f"{run.environment.threads} thread{'' if run.environment.threads == 1 else 's'}"
