"""The verdict: limits of the budget and graded findings, put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgewise.contracts.budget import LimitVerdict, Verdict
from edgewise.contracts.verification import Change, Finding, Grade, Section, Verification


def concluded(limits: Sequence[LimitVerdict], sections: Sequence[Section]) -> Verdict:
    """Return fail where a limit or a finding fails, else unknown where a limit is or a suite broke off, else pass.

    A single finding that is unknown is shown, and does not hold back a verdict unless the budget asks for its figure.
    """
    if any(each.verdict is Verdict.FAIL for each in limits) or any(failures(sections)):
        return Verdict.FAIL
    unknown = any(each.verdict is Verdict.UNKNOWN for each in limits) or any(not each.finished for each in sections)
    return Verdict.UNKNOWN if unknown else Verdict.PASS


def broken_off(sections: Sequence[Section]) -> str:
    """Return a warning that names the suites that broke off, empty where all finished."""
    names = ", ".join(each.suite for each in sections if not each.finished)
    return f"NOT VERIFIED, for a suite broke off: {names}" if names else ""


def failures(sections: Sequence[Section]) -> Iterator[Finding]:
    """Yield the findings that fail, in the order of the document."""
    return (each for section in sections for each in section.findings if each.grade is Grade.FAIL)


def changes(before: Verification, sections: Sequence[Section]) -> tuple[Change, ...]:
    """Return the findings whose grade differs from the baseline's, or that only one of the two has."""
    old, new = _by_name(before.sections), _by_name(sections)
    found = []
    for key in dict.fromkeys([*old, *new]):
        was, now = old.get(key), new.get(key)
        if was is not None and now is not None and was.grade is now.grade and was.value == now.value:
            continue
        found.append(
            Change(
                name=key[0],
                subject=key[1],
                before=was.grade if was is not None else None,
                after=now.grade if now is not None else None,
                value_before=was.value if was is not None else None,
                value_after=now.value if now is not None else None,
            )
        )
    return tuple(found)


def _by_name(sections: Sequence[Section]) -> dict[tuple[str, str], Finding]:
    return {(each.name, each.subject): each for section in sections for each in section.findings}
