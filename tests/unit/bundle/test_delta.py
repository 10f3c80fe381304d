from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgewise.bundle.delta import BLOCK_BYTES, MAGIC, Header, Method, Segment, pack, read_header
from edgewise.bundle.delta_apply import apply, apply_delta
from edgewise.bundle.delta_make import candidates, compressed, make_delta
from edgewise.errors import BundleError, DigestError, TrustError
from tests.unit.bundle import bundles

RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.integers(-100, 100, 400_000, np.int8)
OLD = bundles.bundle(weights={"conv": WEIGHTS})
NEW = bundles.bundle(
    version="1.3.0",
    weights={"conv": WEIGHTS + RANDOM.choice(np.array([-1, 0, 1], np.int8), WEIGHTS.size, p=[0.1, 0.8, 0.1])},
)
DIGEST = hashlib.sha256(NEW).hexdigest()
FOUND = {each.method: each.data for each in candidates(OLD, NEW)}


def applied(old: bytes, delta: bytes, digest: str = DIGEST) -> bytes:
    out = io.BytesIO()
    apply(old, io.BytesIO(delta), out.write, digest=digest)
    return out.getvalue()


def test_a_fine_tuned_tensor_ships_as_differences() -> None:
    best = make_delta(OLD, NEW)
    assert best is not None
    assert best.method is Method.TENSORS
    assert len(best.data) < 0.2 * len(NEW)
    assert len(FOUND[Method.PATCH]) > 2 * len(best.data)


def test_what_shares_nothing_ships_whole() -> None:
    other = bundles.bundle(weights={"conv": RANDOM.integers(-128, 128, WEIGHTS.size, np.int8)})
    assert make_delta(OLD, other) is None
    assert make_delta(b"", NEW) is None


@pytest.mark.parametrize("method", Method)
def test_every_damaged_block_is_named(method: Method) -> None:
    delta = FOUND[method]
    header = read_header(io.BytesIO(delta))
    start = len(delta) - header.payload_bytes
    assert len(header.blocks) == -(-header.payload_bytes // BLOCK_BYTES)
    for number in range(len(header.blocks)):
        damaged = bytearray(delta)
        damaged[start + number * BLOCK_BYTES] ^= 1
        with pytest.raises(DigestError, match=f"block {number} of the delta"):
            applied(OLD, bytes(damaged))


def test_another_old_bundle_is_refused() -> None:
    for other in (b"", OLD[:-1], OLD[:-1] + b"\0", NEW):
        with pytest.raises(DigestError, match="another bundle"):
            applied(other, FOUND[Method.TENSORS])


def test_only_the_signed_result_is_made() -> None:
    with pytest.raises(DigestError, match="the signed one"):
        applied(OLD, FOUND[Method.TENSORS], "0" * 64)


def lying(**fields: object) -> bytes:
    """Return the delta of tensors with another header, and digests of blocks that fit."""
    delta = FOUND[Method.TENSORS]
    header = read_header(io.BytesIO(delta))
    return pack(msgspec.structs.replace(header, **fields)) + delta[len(delta) - header.payload_bytes :]


def test_a_delta_whose_result_is_not_what_it_promises_is_refused() -> None:
    header = read_header(io.BytesIO(FOUND[Method.TENSORS]))
    first, *rest = header.segments
    swapped = (Segment(first.length), *rest[1:], rest[0]) if len(rest) > 1 else (*rest, first)
    with pytest.raises((DigestError, BundleError)):
        applied(OLD, lying(segments=swapped))


@pytest.mark.parametrize(
    "delta",
    [
        b"",
        MAGIC,
        b"edgewise delta 2\n" + bytes(40),
        MAGIC + b"\xff\xff\xff\xff",
        MAGIC + b"\x05\x00\x00\x00{}",
        MAGIC + b"\x02\x00\x00\x00{}",
        MAGIC + b"\x04\x00\x00\x00\xff\xfe\xfd\xfc",
        FOUND[Method.PATCH][:-1],
        FOUND[Method.PATCH] + b"\0",
        OLD,
        lying(new_size=len(NEW) - 1),
        lying(new_size=1 << 60),
        lying(old_size=-1),
        lying(streams=(1,)),
        lying(streams=(1 << 60, 1)),
        lying(blocks=()),
        lying(segments=()),
        lying(segments=(Segment(len(NEW), len(OLD)),)),
        lying(segments=(Segment(len(NEW), -2),)),
        lying(segments=(Segment(len(NEW), 0, 3),)),
        lying(segments=(Segment(len(NEW) + 5), Segment(-5))),
        lying(segments=(Segment(len(NEW)),)),
    ],
    ids=range(22),
)
def test_a_delta_that_lies_is_refused(delta: bytes) -> None:
    with pytest.raises((BundleError, TrustError)):
        applied(OLD, delta)


def test_a_stream_that_gives_more_than_promised_is_cut_off() -> None:
    """A bomb: 64 MiB of zeros in some kilobytes. No more of it is made than the header says."""
    bomb = compressed(bytes(64 << 20))
    made = 0

    def count(data: bytes) -> None:
        nonlocal made
        made += len(data)

    header = Header(
        method=Method.PATCH,
        old_digest=hashlib.sha256(b"").hexdigest(),
        old_size=0,
        new_digest=DIGEST,
        new_size=1000,
        streams=(len(bomb),),
        blocks=(hashlib.sha256(bomb).hexdigest(),),
    )
    with pytest.raises(BundleError, match="more than its header says"):
        apply(b"", io.BytesIO(pack(header) + bomb), count, digest=DIGEST)
    assert made == 1000


@pytest.mark.parametrize("step", ["replace", "fsync", "none"])
def test_a_crash_or_a_refusal_leaves_the_old_file(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def fail(*_: object, **__: object) -> None:
        raise Killed

    old, delta, output = tmp_path / "old", tmp_path / "delta", tmp_path / "slot"
    old.write_bytes(OLD)
    output.write_bytes(b"before")
    delta.write_bytes(FOUND[Method.TENSORS][: -1 if step == "none" else None])
    if step == "none":
        with pytest.raises(DigestError):
            apply_delta(old, delta, output, digest=DIGEST)
    else:
        owner: object = Path if step == "replace" else os
        with monkeypatch.context() as patch:
            patch.setattr(owner, step, fail)
            with pytest.raises(Killed):
                apply_delta(old, delta, output, digest=DIGEST)
    assert output.read_bytes() == b"before"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["delta", "old", "slot"]
    delta.write_bytes(FOUND[Method.TENSORS])
    apply_delta(old, delta, output, digest=DIGEST)
    assert output.read_bytes() == NEW
