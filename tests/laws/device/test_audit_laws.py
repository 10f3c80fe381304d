"""The chain of the audit log, for every content and every change."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgewise.contracts.outcome import OutcomeKind
from edgewise.device.audit.chain import START, Entry, Header, line_of, read_segment

COUNTS = st.integers(0, 2**53)
ENTRIES = st.lists(
    st.builds(
        Entry,
        number=st.just(0),
        first_unix_ms=COUNTS,
        last_unix_ms=st.just(0),
        count=st.just(1),
        kind=st.sampled_from(OutcomeKind),
        reason=st.sampled_from(["late", "", '"\n\\', "\u00e4\u2028\U0001f600"]),
        least_slack_ms=st.sampled_from([None, -1.5, 0.1]),
        variant=st.sampled_from([None, "int8"]),
    ),
    max_size=4,
)


def written(entries: list[Entry]) -> tuple[bytes, tuple[Entry, ...], str]:
    data, digest = line_of(Header(segment=1, after=START, next_number=5), START)
    numbered = []
    for at, entry in enumerate(entries):
        numbered.append(Entry(**{**{name: getattr(entry, name) for name in entry.__struct_fields__}, "number": 5 + at}))
        line, digest = line_of(numbered[-1], digest)
        data += line
    return data, tuple(numbered), digest


@given(ENTRIES)
def test_what_was_written_is_read_again(entries: list[Entry]) -> None:
    data, numbered, digest = written(entries)
    found = read_segment(data)
    assert (found.entries, found.digest, found.problem) == (numbered, digest, "")
    assert (found.good_bytes, found.torn_bytes) == (len(data), 0)


@given(ENTRIES, st.data())
def test_any_cut_leaves_a_chain_up_to_the_last_whole_line(entries: list[Entry], data: st.DataObject) -> None:
    whole, numbered, _ = written(entries)
    kept = whole[: data.draw(st.integers(0, len(whole)))]
    found = read_segment(kept)
    lines = kept.count(b"\n")
    assert found.problem == ""
    assert found.entries == numbered[: max(lines - 1, 0)]
    assert found.good_bytes + found.torn_bytes == len(kept)
    assert (found.header is None) == (lines == 0)


@given(ENTRIES, st.data())
def test_any_changed_byte_is_found_at_its_line(entries: list[Entry], data: st.DataObject) -> None:
    whole, numbered, digest = written(entries)
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[at] ^= data.draw(st.integers(1, 255))
    found = read_segment(bytes(changed))
    line = whole[:at].count(b"\n")
    assert found.problem or found.torn_bytes  # the last line feed is what makes its line whole
    assert found.entries == numbered[: max(line - 1, 0)]
    assert found.digest != digest


@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_a_crash(data: bytes) -> None:
    found = read_segment(data)
    assert not found.entries
