"""`verification.html`: one page at the top is the verdict, then what every suite found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

from edgewise.contracts.budget import Verdict
from edgewise.contracts.verification import Cell, Change, Finding, Grade, Section, Table, Verification
from edgewise.forge.cache import write_atomically
from edgewise.forge.report import bars
from edgewise.forge.report.figures import MISSING, number, score, speedup
from edgewise.forge.report.lines import line_chart
from edgewise.forge.report.markup import Child, Html, join, table, tag
from edgewise.forge.report.page import document
from edgewise.forge.report.pictures import Picture, drawn

_SAID = {
    Verdict.PASS: ("", "passes"),
    Verdict.FAIL: ("fail", "fails"),
    Verdict.UNKNOWN: ("unknown", "passes as far as is known"),
}
_UNFINISHED = ("unknown", "is not verified: a suite broke off")
_CHIPS = {
    Grade.PASS: "pass",
    Grade.FLAG: "unknown",
    Grade.FAIL: "fail",
    Grade.UNKNOWN: "unknown",
    Grade.UNAVAILABLE: "plain",
    Grade.NOTED: "plain",
}
_ORDER = (Grade.FAIL, Grade.UNKNOWN, Grade.FLAG, Grade.PASS, Grade.NOTED, Grade.UNAVAILABLE)
_TROUBLE = (Grade.FAIL, Grade.UNKNOWN, Grade.FLAG)
_MOST_IN_SIGHT, _MOST_TROUBLES, _MOST_ROWS = 14, 16, 200
_SHOWN_SECONDS = 0.05


def write_verification(found: Verification, *, path: Path, pictures: Sequence[Picture] = ()) -> None:
    """Write the page, whole or not at all. Raises OutputError where the disk refuses."""
    write_atomically(path, verification_page(found, pictures=pictures).encode())


def verification_page(found: Verification, *, pictures: Sequence[Picture] = ()) -> str:
    """Return the whole page."""
    parts = [
        _verdict(found),
        _changes(found.changes, found.baseline) if found.baseline is not None else None,
        *(_section(each, pictures if each.suite == "agreement" else ()) for each in found.sections),
        _calibration(found),
        _provenance(found),
    ]
    return document(f"edgewise: verification of {PurePath(found.variant).name}", parts)


def summary(found: Verification, *, link: str) -> Html:
    """Return the verdict as a section of another page, with a link to the whole one."""
    kind, said = _said(found)
    return tag(
        "section",
        tag("h2", "Verification"),
        tag("p", tag("span", said.capitalize(), class_="said"), ": ", _counted(found), ". "),
        _troubles(found) or tag("p", "Nothing failed and nothing was flagged.", class_="small"),
        tag("p", tag("a", "The whole verification", href=link)),
        class_=f"verdict {kind}".rstrip(),
    )


def _said(found: Verification) -> tuple[str, str]:
    unfinished = found.verdict is Verdict.UNKNOWN and any(not each.finished for each in found.sections)
    return _UNFINISHED if unfinished else _SAID[found.verdict]


def _verdict(found: Verification) -> Html:
    kind, said = _said(found)
    words = (
        f"{found.suite} verification beside {PurePath(found.reference).name}, {found.task}, on {found.runtime} "
        f"{found.runtime_version}, {found.samples:,} test samples, seed {found.seed}"
    )
    gauges = tag("div", *(bars.gauge(each) for each in found.limits), class_="cards") if found.limits else None
    return tag(
        "section",
        tag("h1", PurePath(found.variant).name),
        tag("div", tag("span", said.capitalize(), class_="said"), tag("span", f"  {words}", class_="small")),
        _headline(found),
        gauges or tag("p", "No limit was asked for: the suites judge by their own, stated ones.", class_="small"),
        _troubles(found),
        tag("p", _counted(found), class_="small"),
        tag("ul", *(tag("li", each) for each in found.warnings), class_="notes") if found.warnings else None,
        class_=f"verdict {kind}".rstrip(),
    )


def _headline(found: Verification) -> Html:
    mine, fp32 = found.figures, found.reference_figures
    # Without labels there is no score, and the task's own distance to fp32 is what can be said.
    first = (score(mine), f"{found.metric} (fp32 {score(fp32)})")
    if mine.score is None and mine.divergence is not None:
        first = (number(mine.divergence), "mean distance to fp32 (no labels)")
    shown = [
        first,
        (number(mine.flip_rate, "%"), "flips"),
        (speedup(mine).partition(" ")[0], "speed over fp32"),
        (number(mine.latency_p50_ms, "ms"), f"latency p50 (fp32 {number(fp32.latency_p50_ms, 'ms')})"),
        (number(mine.size_mib, "MiB"), f"size (fp32 {number(fp32.size_mib, 'MiB')})"),
    ]
    return tag("div", *(tag("div", tag("b", value), tag("span", label)) for value, label in shown), class_="headline")


def _troubles(found: Verification) -> Html | None:
    """Return what failed, is unknown or was flagged, the worst first."""
    every = [each for section in found.sections for each in section.findings]
    troubles = sorted((each for each in every if each.grade in _TROUBLE), key=lambda each: _ORDER.index(each.grade))
    if not troubles:
        return None
    more = len(troubles) - _MOST_TROUBLES
    return join(
        [
            _findings(troubles[:_MOST_TROUBLES]),
            tag("p", f"{more} more stand in the sections below.", class_="small") if more > 0 else None,
        ]
    )


def _counted(found: Verification) -> str:
    every = [each.grade for section in found.sections for each in section.findings]
    return "Findings: " + ", ".join(f"{every.count(grade)} {grade}" for grade in _ORDER if grade in every)


def _section(section: Section, pictures: Sequence[Picture]) -> Html:
    ordered = sorted(section.findings, key=lambda each: _ORDER.index(each.grade))
    shown, rest = ordered[:_MOST_IN_SIGHT], ordered[_MOST_IN_SIGHT:]
    words = [
        f"{section.seconds:.1f} s" if section.seconds >= _SHOWN_SECONDS else "",
        f"seed {section.seed}" if section.seed is not None else "",
    ]
    return tag(
        "section",
        tag("h2", section.title),
        tag("p", ", ".join(each for each in words if each)),
        _findings(shown) if shown else None,
        tag("details", tag("summary", f"{len(rest)} more findings"), _findings(rest)) if rest else None,
        tag("div", *(line_chart(each) for each in section.charts), class_="charts") if section.charts else None,
        _pictures(pictures) if pictures else None,
        *(_table(each) for each in section.tables),
    )


def _findings(findings: Sequence[Finding]) -> Html:
    head = ["finding", "grade", "value", "fp32", "limit", "what was found"]
    return table(head, [_row(each) for each in findings], class_="findings")


def _row(each: Finding) -> tuple[Child, ...]:
    advice = tag("span", f"Try: {each.advice}", class_="advice") if each.advice else None
    return (
        each.name if not each.subject else join([each.name, tag("br"), tag("code", each.subject)]),
        tag("span", each.grade.value, class_=f"chip {_CHIPS[each.grade]}"),
        _value(each.value, each.unit),
        _value(each.reference, each.unit),
        _value(each.limit, each.unit),
        join([each.detail, advice]),
    )


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    is_count = not unit and abs(value) > 1 and float(value).is_integer()
    return f"{value:,.0f}" if is_count else number(value, unit)


def _table(each: Table) -> Html:
    rows = [[_cell(cell) for cell in row] for row in each.rows[:_MOST_ROWS]]
    left_out = len(each.rows) - len(rows)
    more = f"{left_out} more rows stand in the document" if left_out > 0 else ""
    note = "; ".join(part.rstrip(".") for part in (each.note, more) if part)
    drawn_table = table(each.columns, rows)
    if len(rows) > _MOST_IN_SIGHT:
        drawn_table = tag("details", tag("summary", f"{len(rows)} rows"), drawn_table)
    return join([tag("h3", each.title), tag("p", note, class_="small") if note else None, drawn_table])


def _cell(cell: Cell) -> str:
    match cell:
        case None:
            return MISSING
        case bool():
            return "yes" if cell else "no"
        case float():
            return number(cell, digits=4)
        case _:
            return str(cell)


def _pictures(pictures: Sequence[Picture]) -> Html:
    shown = [
        tag("figure", drawn(each), tag("figcaption", *(tag("span", line) for line in _lines(each))))
        for each in pictures
    ]
    return join([tag("h3", "Inputs of the worst exemplars"), tag("div", *shown, class_="pictures")])


def _lines(each: Picture) -> tuple[str, ...]:
    return (f"sample {each.index}", *each.captions)


def _changes(changes: Sequence[Change], baseline: str | None) -> Html:
    rows = [
        (
            f"{each.name} {each.subject}".rstrip(),
            each.before.value if each.before is not None else "not there",
            each.after.value if each.after is not None else "not there",
            number(each.value_before) if each.value_before is not None else "",
            number(each.value_after) if each.value_after is not None else "",
        )
        for each in sorted(changes, key=lambda each: each.before is each.after)
    ]
    words = f"Against {baseline}; changed grades come first."
    body = table(["finding", "was", "is", "value before", "value now"], rows) if rows else tag("p", "Nothing changed.")
    return tag("section", tag("h2", "Changes"), tag("p", words), body)


def _calibration(found: Verification) -> Html | None:
    mine = found.calibration
    facts = [("temperature", number(mine.temperature))] if mine.temperature is not None else []
    facts += [
        (f"conformal threshold for {float(key):.0%}", number(value)) for key, value in sorted(mine.conformal.items())
    ]
    facts += [(f"cut-off of {each.score}, keeps {each.keep:.0%}", number(each.cutoff)) for each in mine.cutoffs]
    if not facts:
        return None
    words = "Fitted on the variant's own outputs; they are swapped with it."
    return tag("section", tag("h2", "Calibration of this variant"), tag("p", words), _facts(facts))


def _provenance(found: Verification) -> Html:
    here = found.environment
    return tag(
        "section",
        tag("h2", "Where the figures come from"),
        _facts(
            [
                ("variant", f"{found.variant} (SHA-256 {found.variant_digest})"),
                ("reference", f"{found.reference} (SHA-256 {found.reference_digest})"),
                ("test data", f"{found.samples} samples, SHA-256 {found.data_digest}"),
                ("seed", str(found.seed)),
                ("processor", f"{here.processor} ({here.machine}), {here.cores} cores, {here.threads} used"),
                ("memory", number(here.memory_mib, "MiB")),
                ("system", f"{here.system}, Python {here.python}"),
                ("versions", ", ".join(f"{key} {value}" for key, value in here.versions.items())),
                ("load average", MISSING if here.load_average is None else f"{here.load_average:.2f}"),
                ("seconds", ", ".join(f"{key} {value:.1f}" for key, value in found.seconds.items())),
            ]
        ),
    )


def _facts(facts: Sequence[tuple[str, str]]) -> Html:
    return tag("dl", *(each for key, value in facts for each in (tag("dt", key), tag("dd", value))))
