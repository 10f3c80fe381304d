"""Totals are a commutative monoid, and an envelope falls into exactly one cell."""

from __future__ import annotations

from functools import reduce

from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.contracts.histogram import histogram_of
from edgewise.contracts.outcome import OutcomeKind
from edgewise.contracts.telemetry import Envelope, Sketch
from edgewise.fleet.ingest_merge import DAY_MS, Sums, add_all, place
from edgewise.fleet.ingest_totals import SERIES_MS, Totals, add, decode, encode, totals_of
from edgewise.fleet.store.telemetry import Received

NAMES = st.sampled_from(["latency_ms", "energy_mj"])
COUNTS = st.integers(0, 1000)
VALUES = st.lists(st.floats(1e-6, 1e6), max_size=12)
EDGES = st.sampled_from([(0.0, 1.0), (0.5,)])
WEEK_MS = 7 * DAY_MS


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    start = draw(st.integers(WEEK_MS, 2 * WEEK_MS))
    edges = draw(EDGES)
    counts = draw(st.lists(COUNTS, min_size=len(edges) + 1, max_size=len(edges) + 1))
    return Envelope(
        device=draw(st.sampled_from(["one", "two"])),
        boot="boot",
        sequence=draw(st.integers(0, 2**53)),
        start_unix_ms=start,
        end_unix_ms=start + 1000,
        device_class="pi5",
        release=draw(st.sampled_from(["a" * 64, "b" * 64])),
        variant="int8",
        histograms={name: histogram_of(draw(VALUES)) for name in draw(st.sets(NAMES))},
        counters=draw(st.dictionaries(NAMES, COUNTS)),
        outcomes=draw(st.dictionaries(st.sampled_from(OutcomeKind), COUNTS)),
        crashes=draw(COUNTS),
        crash_loop=draw(st.booleans()),
        signature_failures=draw(COUNTS),
        lost_windows=draw(COUNTS),
        sketches={"margin": Sketch(edges=edges, counts=tuple(counts))},
    )


@settings(max_examples=25)
@given(st.lists(envelopes(), max_size=6), st.randoms(use_true_random=False))
def test_order_and_grouping_do_not_matter(found: list[Envelope], random: object) -> None:
    parts = [totals_of(each) for each in found]
    whole = reduce(add, parts, Totals())
    shuffled = list(parts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a Random
    middle = len(parts) // 2
    halves = [reduce(add, shuffled[:middle], Totals()), reduce(add, shuffled[middle:], Totals())]
    assert add(*halves) == whole
    assert whole.envelopes == len(found)


@given(envelopes())
def test_totals_read_as_they_were_written(found: Envelope) -> None:
    totals = totals_of(found)
    assert decode(encode(totals)) == totals


@given(envelopes(), st.lists(st.integers(WEEK_MS, 2 * WEEK_MS), unique=True), st.integers(-DAY_MS, DAY_MS))
def test_a_cell_never_spans_a_rollouts_start(found: Envelope, starts: list[int], late_ms: int) -> None:
    row = Received(found.device, found.boot, found.sequence, "kws", max(found.start_unix_ms + late_ms, 0), b"")
    placed = place(row, found, sorted(starts))
    began = min(found.start_unix_ms, row.received_ms)
    assert began - DAY_MS < placed.cell.start_ms <= began
    assert not any(placed.cell.start_ms < start <= began for start in starts)
    assert placed.series.start_ms % SERIES_MS == 0


@settings(max_examples=25)
@given(st.lists(envelopes(), max_size=6))
def test_cells_and_series_each_hold_everything_once(found: list[Envelope]) -> None:
    placed = [place(Received(each.device, each.boot, each.sequence, "kws", WEEK_MS, b""), each, ()) for each in found]
    sums = add_all(placed, Sums(cells={}, series={}, faults={}))
    whole = reduce(add, map(totals_of, found), Totals())
    assert reduce(add, (cell.totals for cell in sums.cells.values()), Totals()) == whole
    assert reduce(add, sums.series.values(), Totals()) == whole
