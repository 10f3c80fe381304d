from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgewise.contracts.budget import Budget
from edgewise.contracts.evidence import HistogramEvidence
from edgewise.contracts.recipe import Format
from edgewise.contracts.run import BudgetEvidence, Run
from edgewise.errors import OutputError
from edgewise.forge.report import Picture, write_report
from edgewise.forge.report.page import page
from tests.unit.report.runs import bare, candidate, nothing_fits, recipe, run

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>\x1b]0;title\x07\x00"
VOID = {"br", "hr", "img", "meta"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(key, value or "") for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def text_of(html: str) -> str:
    return " ".join(" ".join(read(html).text).split())


def poisoned(found: Run) -> Run:
    """Return the run with every string that comes from a model, data or another library turned hostile."""
    replace = msgspec.structs.replace
    assert found.chosen is not None
    return replace(
        found,
        model=HOSTILE,
        task=HOSTILE,
        metric=HOSTILE,
        target=HOSTILE,
        chosen=replace(found.chosen, name=HOSTILE),
        candidates=tuple(replace(each, name=HOSTILE, reason=HOSTILE) for each in found.candidates),
        regions=tuple(
            replace(each, region=HOSTILE, kind=HOSTILE, format=HOSTILE, cause=HOSTILE, kernel=HOSTILE)
            for each in found.regions
        ),
        histograms=tuple(replace(each, tensor=HOSTILE) for each in found.histograms),
        flips=tuple(
            replace(each, reference_answer=HOSTILE, variant_answer=HOSTILE, target=HOSTILE) for each in found.flips
        ),
        agreement=tuple(replace(each, runtime=HOSTILE, version=HOSTILE, reason=HOSTILE) for each in found.agreement),
        warnings=(HOSTILE,),
        advice=(HOSTILE,),
        environment=replace(found.environment, processor=HOSTILE, versions={HOSTILE: HOSTILE}),
    )


def pictures() -> list[Picture]:
    image = np.linspace(-1, 1, 3 * 16 * 16, dtype=np.float32).reshape(3, 16, 16)
    return [Picture(index=7, array=image, captions=("fp32: cat", "variant: dog"))]


@pytest.mark.parametrize("made", [run, bare, nothing_fits], ids=["fits", "bare", "nothing fits"])
def test_the_page_is_well_formed_and_loads_nothing(made: Callable[[], Run]) -> None:
    html = page(made(), pictures=pictures())
    reader = read(html)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(reader.tags)
    assert not re.search(r"https?://|url\(|@import", html)
    loads = [value for key, value in reader.attributes if key in {"src", "href", "xlink:href", "action", "srcset"}]
    assert all(value.startswith("data:image/png;base64,") for value in loads)
    assert ("http-equiv", "Content-Security-Policy") in reader.attributes


def test_names_from_a_model_cannot_break_out() -> None:
    html = page(poisoned(run()), pictures=[Picture(index=7, array=np.zeros((4, 4)), captions=(HOSTILE,))])
    reader = read(html)
    assert "script" not in reader.tags
    assert not [key for key, _ in reader.attributes if key.startswith("on")]
    assert "alert('x')" in "".join(reader.text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", html)


def test_figures_verdicts_and_reasons_can_be_read() -> None:
    text = text_of(page(run()))
    for words in ("placed 2 fits the budget", "1.80x", "margin +31%", "the kernel refuses block 24", "QLinearConv"):
        assert words in text
    for words in ("rounding", "SHA-256 " + "cd" * 32, "openvino 2026", "nothing reads its array", "modelled"):
        assert words in text


def test_missing_figures_are_said_to_be_unavailable() -> None:
    text = text_of(page(bare()))
    assert text.count("unavailable") > 10
    assert "unknown" in text
    assert "None" not in text
    assert "nan" not in text
    assert "as far as could be measured" in text


def test_where_nothing_fits_the_limit_the_closest_and_the_advice_are_shown() -> None:
    text = text_of(page(nothing_fits()))
    for words in ("Nothing fits the budget", "fail", "1.39 ms", "closest: placed 2", "try a smaller model"):
        assert words in text
    assert "the test split was not opened" in text
    assert text.count("fp32") > 1
    assert "closest fp32" not in text
    text = text_of(page(nothing_fits(on_test=True)))
    for words in ("5.00 %", "closest in latency p99: placed 2 with 1.39 ms", "try a smaller model"):
        assert words in text


def test_a_limit_of_zero_has_no_gauge_and_does_not_divide() -> None:
    limits = Budget(flip_rate=0.0)
    found = run()
    verdicts = tuple(msgspec.structs.replace(each, required=0.0, margin=None) for each in found.budget.verdicts[:1])
    text = text_of(page(run(budget=BudgetEvidence(limits=limits, verdicts=verdicts, fits=True))))
    assert "at most 0 ms" in text


@pytest.mark.parametrize(
    "broken",
    [
        HistogramEvidence(tensor="t", low=0, high=0, counts=(0,), range_low=0, range_high=0),
        HistogramEvidence(tensor="t", low=0, high=1, counts=(), range_low=0, range_high=1),
        HistogramEvidence(tensor="t", low=0, high=float("inf"), counts=(1,), range_low=0, range_high=1),
        HistogramEvidence(tensor="t", low=0, high=1, counts=(0, 0), range_low=-1, range_high=2),
    ],
)
def test_odd_histograms_do_not_stop_the_report(broken: HistogramEvidence) -> None:
    read(page(run(histograms=(broken,))))


def test_the_front_starts_at_fp32_and_knows_measured_from_screened() -> None:
    html = page(run())
    reader = read(html)
    kinds = [value for key, value in reader.attributes if key == "class"]
    assert kinds.count("dot chosen") == 1
    assert kinds.count("dot best") == 1  # placed 1: slower and closer; placed 3 is beaten by both
    assert kinds.count("dot measured") == 1
    assert kinds.count("dot screened") == 1
    assert "fp32: distance 0, speed 1" in text_of(html)


@pytest.mark.parametrize("noise", [0.0, 1e-14])
def test_a_candidate_with_the_outputs_of_fp32_is_on_the_front(noise: float) -> None:
    folded = candidate("fp32 folded", speedup=3.0, divergence=noise)
    other = candidate("placed 1", speedup=2.0, divergence=0.01)
    html = page(run(candidates=(candidate("fp32"), folded, other)))
    assert html.count("dot best") == 1
    plot = text_of(html).partition("Speed against")[2].partition("What each region")[0]
    assert "fp32 folded: 3.00x" in plot
    assert ">1e-" not in html  # the axis is that of the others


def test_a_front_of_slower_candidates_is_drawn() -> None:
    slow = candidate("slow", speedup=0.4, divergence=1e-9)
    assert "dot measured" in page(run(candidates=(candidate("fp32"), slow)))


@pytest.mark.parametrize(
    ("array", "sign"),
    [
        (np.zeros((8, 8), np.uint8), "<img"),
        (np.zeros((1, 8, 8), np.float32), "<img"),
        (np.zeros((8, 8, 3), np.uint8), "<img"),
        (np.full((3, 8, 8), np.nan, np.float32), "<img"),
        (np.zeros((500, 400), np.float32), "<img"),
        (np.sin(np.arange(16000, dtype=np.float32)), "<polygon"),
        (np.zeros((1, 16000), np.float32), "<polygon"),
        (np.arange(128, dtype=np.int64), "128 values"),
        (np.zeros((), np.float32), "0"),
        (np.zeros((0, 3), np.float32), "empty"),
        (np.zeros((2, 2, 2, 2), np.float32), "0, 0, 0"),
        (np.array(["<b>"]), "&lt;b&gt;"),
    ],
)
def test_inputs_of_any_shape_are_shown(array: np.ndarray, sign: str) -> None:
    html = page(run(), pictures=[Picture(index=0, array=array, captions=("fp32: a",))])
    read(html)
    figure = re.search(r'<div class="pictures">.*?</figure>', html, re.DOTALL)
    assert figure is not None
    assert sign in figure[0]


def test_the_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(run(), path=path, pictures=pictures())
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]
    assert path.stat().st_size < 100_000
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match=r"report\.html"):
        write_report(run(), path=tmp_path / "taken" / "report.html")


def test_the_same_run_gives_the_same_bytes() -> None:
    assert page(run(), pictures=pictures()) == page(run(), pictures=pictures())


def test_a_folded_model_is_not_called_fp32_and_fp32_is_not_called_a_variant() -> None:
    chosen = run().chosen
    assert chosen is not None
    folded = msgspec.structs.replace(chosen, name="fp32 folded", recipe=recipe("fp32 folded", Format.FP32))
    assert "fp32 folded fits the budget (folded and fused, nothing is quantized)" in text_of(page(run(chosen=folded)))
    own = msgspec.structs.replace(folded, name="fp32")
    assert "fp32 stays" in text_of(page(run(chosen=own)))


def test_what_runs_on_another_runtime_than_fp32_says_so() -> None:
    chosen = run().chosen
    assert chosen is not None
    alone = text_of(page(run()))
    assert "against the first, on the test split" in alone
    assert "on openvino" not in alone
    there = text_of(page(run(chosen=msgspec.structs.replace(chosen, runtime="openvino"))))
    assert "against openvino, on the test split" in there
    assert "fp32 on onnxruntime" in there
    assert "variant on openvino" in there
    own = msgspec.structs.replace(
        chosen, name="fp32 on openvino", runtime="openvino", recipe=recipe("fp32", Format.FP32)
    )
    said = text_of(page(run(chosen=own)))
    assert "fp32 on openvino fits the budget" in said
    assert "folded" not in said
