"""Make deltas: several candidates, of which the smallest is shipped, or none where the bundle itself is not much more.

Fine-tuned int8 weights move by a step or two, so their differences modulo 256 are small numbers that compress well,
while a byte-wise search (bsdiff, `zstd --patch-from`) finds nothing equal in them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from edgewise.bundle.delta import (
    BLOCK_BYTES,
    LITERAL,
    MOST_DICTIONARY_BYTES,
    MOST_SEGMENTS,
    MOST_WINDOW_BYTES,
    Header,
    Method,
    Segment,
    block_digests,
    left_over,
    pack,
)
from edgewise.bundle.read import Bundle
from edgewise.bundle.tensors import item_bytes
from edgewise.contracts.manifest import TensorPlace
from edgewise.errors import BundleError

FULL_ABOVE = 0.7
"""Above this share of the new bundle a delta is not worth its risk and its memory."""
_LEVEL = 19
_LOOK_LEVEL = 3
_SMALLEST_WINDOW_LOG = 17


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One delta, whole."""

    method: Method
    data: bytes


def make_delta(old: bytes, new: bytes) -> Candidate | None:
    """Return the smallest delta from one bundle to another, or None where the whole bundle is to be shipped."""
    best = min(candidates(old, new), key=lambda each: len(each.data), default=None)
    return best if best is not None and len(best.data) <= FULL_ABOVE * len(new) else None


def candidates(old: bytes, new: bytes) -> tuple[Candidate, ...]:
    """Return one delta per method that can be had: `patch` within memory, `tensors` for bundles."""
    found = []
    if 0 < len(old) <= MOST_DICTIONARY_BYTES and len(old) + len(new) <= MOST_WINDOW_BYTES:
        found.append(_whole(Method.PATCH, old, new, (), (compressed(new, dictionary=old),)))
    segments = tensor_segments(old, new)
    if any(each.source != LITERAL for each in segments):
        found.append(_by_tensors(old, new, segments))
    return tuple(found)


def tensor_segments(old: bytes, new: bytes) -> tuple[Segment, ...]:
    """Return the new bundle as segments: tensors that are differences to one of the old bundle, the rest literal.

    A tensor goes with the old one of its variant and name, else of its name, if type and shape are the same. It stays
    literal where its difference does not compress better than itself. Empty where either is not a bundle.
    """
    try:
        sources, wanted = _tensors(old), _tensors(new)
    except BundleError:
        return ()
    known: dict[tuple[str, ...], tuple[TensorPlace, int]] = {}
    for variant, place, at in sources:
        known.setdefault((place.name,), (place, at))
        known[variant, place.name] = (place, at)
    segments: list[Segment] = []
    end = 0
    for variant, place, at in sorted(wanted, key=lambda each: each[2]):
        match = known.get((variant, place.name)) or known.get((place.name,))
        if match is None or (match[0].dtype, match[0].shape) != (place.dtype, place.shape) or not place.size:
            continue
        segment = Segment(place.size, match[1], item_bytes(place.dtype))
        if not _is_worth_it(old, new, at, segment):
            continue
        if at > end:
            segments.append(Segment(at - end))
        segments.append(segment)
        end = at + place.size
    if end < len(new):
        segments.append(Segment(len(new) - end))
    return tuple(segments) if len(segments) <= MOST_SEGMENTS else ()


def _tensors(data: bytes) -> list[tuple[str, TensorPlace, int]]:
    """Return every tensor of a bundle with its variant's name and its offset in the file."""
    with Bundle(io.BytesIO(data), name="bundle") as bundle:
        folders = {f"{name}/": its for name, its in bundle.stages.items()} or {"": bundle.manifest}
        return [
            (folder + variant.name, place, bundle.entries[folder + variant.weights].offset + place.offset)
            for folder, manifest in folders.items()
            for variant in manifest.variants
            if variant.weights is not None
            for place in variant.tensors
        ]


def _is_worth_it(old: bytes, new: bytes, at: int, segment: Segment) -> bool:
    look = zstandard.ZstdCompressor(level=_LOOK_LEVEL)
    change = b"".join(differences(old, new, at, segment))
    return len(look.compress(change)) <= len(look.compress(new[at : at + segment.length]))


def _by_tensors(old: bytes, new: bytes, segments: tuple[Segment, ...]) -> Candidate:
    changes, literals = bytearray(), bytearray()
    at = 0
    for each in segments:
        if each.source == LITERAL:
            literals += new[at : at + each.length]
        else:
            for change in differences(old, new, at, each):
                changes += change
        at += each.length
    streams = (
        compressed(bytes(changes)),
        compressed(bytes(literals), dictionary=left_over(old, segments)),
    )
    return _whole(Method.TENSORS, old, new, segments, streams)


def differences(old: bytes, new: bytes, at: int, segment: Segment) -> Iterator[bytes]:
    """Yield new minus old of a segment, a block at a time, each block as planes of bytes, the lowest first.

    Planes, because the high bytes of small changes are alike and then stand together.
    """
    for start in range(0, segment.length, BLOCK_BYTES):
        size = min(BLOCK_BYTES, segment.length - start)
        before = _numbers(old, segment.source + start, size, segment.width)
        change = _numbers(new, at + start, size, segment.width) - before
        yield change.view(np.uint8).reshape(-1, segment.width).T.tobytes()


def _numbers(data: bytes, at: int, size: int, width: int) -> NDArray[np.unsignedinteger]:
    return np.frombuffer(data, f"<u{width}", size // width, at)


def compressed(data: bytes, *, dictionary: bytes = b"") -> bytes:
    """Return one zstd frame; matches reach back over all of data and dictionary."""
    reach = max((len(data) + len(dictionary)).bit_length(), _SMALLEST_WINDOW_LOG)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL,
        window_log=min(reach, MOST_WINDOW_BYTES.bit_length() - 1),
        enable_ldm=bool(dictionary),
        write_content_size=True,
    )
    if not dictionary:
        return zstandard.ZstdCompressor(compression_params=parameters).compress(data)
    raw = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=raw).compress(data)


def _whole(
    method: Method, old: bytes, new: bytes, segments: tuple[Segment, ...], streams: tuple[bytes, ...]
) -> Candidate:
    payload = b"".join(streams)
    header = Header(
        method=method,
        old_digest=hashlib.sha256(old).hexdigest(),
        old_size=len(old),
        new_digest=hashlib.sha256(new).hexdigest(),
        new_size=len(new),
        streams=tuple(map(len, streams)),
        segments=segments,
        blocks=block_digests(payload),
    )
    return Candidate(method=method, data=pack(header) + payload)
