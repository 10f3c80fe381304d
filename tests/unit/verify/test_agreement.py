"""Agreement: a good variant passes, and each way of being bad is failed or flagged by its name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgewise.contracts.budget import Budget
from edgewise.contracts.verification import Finding, Grade
from edgewise.forge.tasks.generic import Generic
from tests.unit.verify.subjects_by_hand import believer, examined, findings, rounded, subject

BAD = {Grade.FAIL, Grade.FLAG, Grade.UNKNOWN}
GROUPS = ["night" if at % 25 == 0 else "rain" if at % 10 < 4 else "day" for at in range(1200)]


def bad(found: Sequence[Finding]) -> list[Finding]:
    return [each for each in found if each.grade in BAD]


@pytest.mark.parametrize("seed", range(8))
def test_fp32_against_itself_passes(seed: int) -> None:
    logits, labels = believer(seed)
    assert bad(examined(subject(logits, logits, labels.tolist(), groups=GROUPS)).findings) == []


@pytest.mark.parametrize("seed", range(12))
def test_even_rounding_passes(seed: int) -> None:
    logits, labels = believer(seed)
    section = examined(subject(logits, rounded(logits, seed), labels.tolist(), groups=GROUPS))
    assert bad(section.findings) == []


def test_fine_on_average_and_failing_one_subgroup() -> None:
    logits, labels = believer(0)
    variant = rounded(logits)
    night = np.flatnonzero(np.array(GROUPS) == "night")
    variant[night] = rounded(logits[night], noise=2.5)
    found = subject(logits, variant, labels.tolist(), groups=GROUPS)
    section = examined(found)
    judged = findings(section, "agreement.subgroups")
    assert judged["night"].grade is Grade.FAIL
    assert not {"day", "rain"} & judged.keys()
    assert findings(section, "agreement.flips")[""].grade is not Grade.FAIL


def test_a_failing_subgroup_is_found_without_labels() -> None:
    logits, labels = believer(0)
    variant = rounded(logits)
    night = np.flatnonzero(np.array(GROUPS) == "night")
    variant[night] = rounded(logits[night], noise=2.5)
    judged = findings(examined(subject(logits, variant, [None] * len(labels), groups=GROUPS)), "agreement.subgroups")
    assert judged["night"].grade is Grade.FAIL


@pytest.mark.parametrize("shift", [-2.0, 2.0])
def test_the_row_of_one_class_is_named(shift: float) -> None:
    logits, labels = believer(2)
    variant = rounded(logits)
    variant[:, 3] += shift
    judged = findings(examined(subject(logits, variant, labels.tolist())), "agreement.classes")
    assert judged["3"].grade is Grade.FAIL


def test_hard_inputs_that_flip_more_are_no_subgroup_at_fault() -> None:
    logits, labels = believer(3)
    margins = np.diff(np.sort(logits, axis=1)[:, -2:])[:, 0]
    groups = ["hard" if each else "easy" for each in margins < np.quantile(margins, 0.2)]
    section = examined(subject(logits, rounded(logits, noise=0.1), labels.tolist(), groups=groups))
    assert [each for each in findings(section, "agreement.subgroups").values() if each.grade in BAD] == []


def test_a_loss_beyond_the_margin_fails_and_a_limit_takes_the_margins_place() -> None:
    logits, labels = believer(4)
    worse = rounded(logits, noise=1.2)
    plain = findings(examined(subject(logits, worse, labels.tolist())), "agreement.score")[""]
    assert plain.grade is Grade.FAIL
    relaxed = subject(logits, worse, labels.tolist(), budget=Budget(accuracy_drop=0.5, flip_rate=0.9))
    section = examined(relaxed)
    assert findings(section, "agreement.score")[""].grade is Grade.PASS
    assert findings(section, "agreement.flips")[""].grade is Grade.PASS


def test_outputs_that_are_no_numbers_fail() -> None:
    logits, labels = believer(5, samples=60)
    broken = logits.copy()
    broken[7, 2] = np.nan
    section = examined(subject(logits, broken, labels.tolist()))
    found = findings(section, "agreement.finite")[""]
    assert (found.grade, found.value) == (Grade.FAIL, 1)


def test_confidence_that_no_longer_means_what_it_did_is_flagged() -> None:
    logits, labels = believer(6)
    section = examined(subject(logits * 2.5, logits * 10, labels.tolist()))
    assert findings(section, "agreement.ece")[""].grade is Grade.FLAG
    assert findings(section, "agreement.flips")[""].value == 0


def test_the_temperature_belongs_to_the_variant() -> None:
    logits, labels = believer(7)
    own = findings(examined(subject(logits, logits, labels.tolist())), "agreement.temperature")[""].value
    sharp = findings(examined(subject(logits, logits * 3, labels.tolist())), "agreement.temperature")[""].value
    assert own is not None
    assert sharp == pytest.approx(3 * own, rel=1e-6)


def test_conformal_sets_hold_the_label_as_often_as_promised() -> None:
    logits, labels = believer(8, samples=2400)
    found = findings(examined(subject(logits, logits, labels.tolist())), "agreement.conformal")
    assert set(found) == {"0.8", "0.9", "0.95"}
    share = float(found["0.9"].detail.split("label of ")[1].split("%")[0]) / 100
    assert share == pytest.approx(0.9, abs=0.03)


def test_flips_near_the_boundary_and_far_from_it_stand_apart() -> None:
    logits, labels = believer(9)
    section = examined(subject(logits, rounded(logits, noise=0.2), labels.tolist()))
    (line,) = next(each for each in section.charts if "margin" in each.title).lines
    assert line.y[0] > 5 * max(line.y[-1], 0.001)
    assert all(low <= y <= high for low, y, high in zip(line.low, line.y, line.high, strict=True))


def test_the_worst_exemplar_is_the_one_that_fp32_was_surest_of() -> None:
    logits, labels = believer(10, samples=200)
    variant = logits.copy()
    surest = int(np.argmax(np.diff(np.sort(logits, axis=1)[:, -2:])[:, 0]))
    variant[surest] = -variant[surest]
    table = next(
        each for each in examined(subject(logits, variant, labels.tolist())).tables if "exemplars" in each.title
    )
    assert table.rows[0][0] == surest


def test_without_labels_the_score_is_unavailable_unless_the_budget_asks_for_it() -> None:
    logits, _ = believer(11, samples=100)
    nothing = [None] * 100
    assert findings(examined(subject(logits, logits, nothing)), "agreement.score")[""].grade is Grade.UNAVAILABLE
    asked = subject(logits, logits, nothing, budget=Budget(accuracy_drop=0.01))
    assert findings(examined(asked), "agreement.score")[""].grade is Grade.UNKNOWN


def test_a_task_without_answers_says_what_it_cannot_tell() -> None:
    logits, labels = believer(12, samples=50)
    section = examined(subject(logits, rounded(logits), labels.tolist(), task=Generic(), groups=GROUPS[:50]))
    assert findings(section, "agreement.flips")[""].grade is Grade.UNAVAILABLE
    assert bad(section.findings) == []
