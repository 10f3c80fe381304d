"""The page of a verification: the verdict first, everything in it, and nothing that a name could break."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from edgewise.contracts.budget import Verdict
from edgewise.contracts.evidence import FlipEvidence
from edgewise.contracts.verification import Chart, Finding, Grade, Line, Section
from edgewise.forge.report.exemplars import picture
from edgewise.forge.report.lines import line_chart
from edgewise.forge.report.page import page
from edgewise.forge.report.pictures import Picture
from edgewise.forge.report.verification import summary, verification_page, write_verification
from tests.unit.report import runs
from tests.unit.report.verifications import HOSTILE, section, verification
from tests.unit.verify.subjects_by_hand import Numbered


class Tags(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.seen.add(tag)
        if tag not in {"meta", "img", "br", "hr"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    return tags


def test_the_verdict_with_its_limits_comes_first() -> None:
    text = verification_page(verification())
    assert (
        text.index(">Fails<") < text.index("flips") < text.index("agreement.fail") < text.index("Agreement with fp32")
    )
    assert "seed 7" in text
    assert "unavailable" in text


@pytest.mark.parametrize(
    ("verdict", "words"),
    [(Verdict.PASS, "Passes"), (Verdict.FAIL, "Fails"), (Verdict.UNKNOWN, "Passes as far as is known")],
)
def test_every_verdict_is_said_in_words(verdict: Verdict, words: str) -> None:
    assert f">{words}<" in verification_page(verification(verdict=verdict))
    assert f">{words}<" in summary(verification(verdict=verdict), link="verification/verification.html")


def test_everything_found_is_on_the_page() -> None:
    words = " ".join(read(verification_page(verification())).words)
    for each in section().findings:
        assert each.name in words
        assert each.detail in words
    for expected in ("Flips by class", "as counted", "Reliability", "no points", "runs/old", "temperature", "cut-off"):
        assert expected in words


def test_a_long_name_of_an_axis_is_not_cut_off() -> None:
    line = Line(name="fp32", x=(1.0, 2.0), y=(1.0, 3.0))
    for name in ("loss in top1", "loss in distance to its own clean output (there are no labels)"):
        drawn = line_chart(Chart(title="Mean loss", x_label="severity", y_label=name, lines=(line,)))
        beside = drawn[drawn.index("<svg") : drawn.index("</svg>")]
        assert name in drawn
        assert (name in beside) is (name == "loss in top1"), "along the axis there is room for some 32 characters"


def test_counts_are_whole_numbers_and_ratios_are_not() -> None:
    parts = [
        Finding(name=f"x.{value}", grade=Grade.NOTED, detail="", value=value, reference=1.0) for value in (8.0, 2758.0)
    ]
    one = Section(suite="x", title="X", findings=tuple(parts), seconds=0.01)
    page = " ".join(read(verification_page(verification(sections=(one,)))).words)
    assert "8 1.00" in page
    assert "2,758 1.00" in page
    assert "0.0 s" not in page


def test_an_exemplar_says_how_far_it_is_where_its_answers_read_the_same() -> None:
    flip = FlipEvidence(
        index=4, reference_answer="vector of 384", variant_answer="vector of 384", target=None, margin=None
    )
    split = Numbered([None] * 5)
    assert picture(split, flip, distance=0.0067).captions == ("distance to fp32: 0.0067",)
    page = verification_page(verification(), pictures=(picture(split, flip, distance=0.0067),))
    assert "sample 4" in read(page).words
    other = FlipEvidence(index=4, reference_answer="cat", variant_answer="dog", target=None, margin=None)
    assert picture(split, other, distance=0.5).captions == ("fp32: cat", "variant: dog", "distance to fp32: 0.5")


def test_nothing_is_loaded_and_no_name_breaks_out() -> None:
    picture = Picture(index=3, array=np.zeros((8, 8)), captions=(HOSTILE,))
    text = verification_page(verification(variant=HOSTILE, baseline=HOSTILE), pictures=(picture,))
    assert "script" not in read(text).seen
    assert not re.search(r"(src|href)=\"(?!data:)", text)


def test_a_verification_without_anything_has_a_page_too() -> None:
    bare = verification(sections=(), limits=(), baseline=None, changes=(), warnings=())
    assert "No limit was asked for" in verification_page(bare)


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    write_verification(verification(), path=tmp_path / "verification.html")
    assert (tmp_path / "verification.html").read_text().endswith("</html>\n")


def test_the_report_of_a_run_shows_the_proof_after_its_verdict() -> None:
    text = page(runs.run(), proof=summary(verification(), link="verification/verification.html"))
    read(text)
    assert text.index("fits the budget") < text.index("verification/verification.html") < text.index("Figures")


def test_a_curve_goes_through_its_points_and_stays_inside() -> None:
    chart = Chart(title="t", x_label="x", y_label="y", lines=(Line(name="a", x=(0, 1, 2), y=(0, 5, -5)),))
    drawn = line_chart(chart)
    places = [tuple(map(float, pair)) for pair in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    assert len(places) == 3
    assert places[1][1] < places[0][1] < places[2][1]
    assert all(0 < x < 520 and 0 < y < 270 for x, y in places)


@pytest.mark.parametrize("y", [(1.0,), (0.0, 0.0), (1e-9, 1e9)])
def test_curves_without_extent_are_drawn(y: tuple[float, ...]) -> None:
    x = tuple(float(at) for at in range(len(y)))
    assert "path" in line_chart(Chart(title="t", x_label="x", y_label="y", lines=(Line(name="a", x=x, y=y),)))
