from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgewise.bundle.archive import ALIGNMENT
from edgewise.bundle.names import MANIFEST
from edgewise.bundle.read import Bundle
from edgewise.bundle.seal import make_seal, parse_seal
from edgewise.bundle.tensors import read_tensor
from edgewise.bundle.write import encode_manifest, write_archive
from edgewise.contracts.manifest import Manifest
from edgewise.errors import BundleError, DigestError, SignatureError, TrustError
from edgewise.keys.pair import generate, public_of, signer_of
from tests.unit.bundle import bundles

GOOD = bundles.bundle()


def opened(data: bytes) -> Bundle:
    return Bundle(io.BytesIO(data), name="test")


def test_the_same_files_and_key_give_the_same_bytes() -> None:
    assert bundles.bundle() == GOOD


def test_a_bundle_is_read_as_it_was_written() -> None:
    manifest, content = bundles.files()
    with opened(GOOD) as bundle:
        assert bundle.manifest == manifest
        assert bundle.verify([bundles.KEY]) == bundle.digest() == hashlib.sha256(GOOD).hexdigest()
        for path, source in content.items():
            assert bundle.read(path, most=1 << 20) == source
        place = manifest.variants[0].tensors[0]
        weights = read_tensor(bundle.read(bundles.WEIGHTS, most=1 << 20), place)
    assert weights.dtype == np.int8
    assert weights.shape == (16, 40)


def test_every_file_begins_at_a_multiple_of_64_bytes() -> None:
    with opened(GOOD) as bundle:
        assert all(each.offset % ALIGNMENT == 0 for each in bundle.entries.values())
        assert all(each.offset % ALIGNMENT == 0 for each in bundle.manifest.variants[0].tensors)


def test_any_zip_tool_can_list_it() -> None:
    with zipfile.ZipFile(io.BytesIO(GOOD)) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == MANIFEST
        assert archive.comment.startswith(b"edgewise bundle 1\ned25519 ")
        assert {each.compress_type for each in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read(bundles.WEIGHTS) == bundles.files()[1][bundles.WEIGHTS]


def test_it_is_extracted_whole(tmp_path: Path) -> None:
    with opened(GOOD) as bundle:
        written = bundle.extract(tmp_path / "out")
    assert {str(each.relative_to(tmp_path / "out")) for each in written} == {*bundles.files()[1], MANIFEST}
    assert (tmp_path / "out" / bundles.WEIGHTS).read_bytes() == bundles.files()[1][bundles.WEIGHTS]


def test_any_changed_byte_is_refused() -> None:
    """Every byte is under the seal or is the seal: flip one bit of each, in turn through all eight bits."""
    for at in range(len(GOOD)):
        changed = bytearray(GOOD)
        changed[at] ^= 1 << at % 8
        with pytest.raises((BundleError, TrustError)), opened(bytes(changed)) as bundle:
            bundle.verify([bundles.KEY])


@pytest.mark.parametrize("length", [0, 1, 21, 200, len(GOOD) // 2, len(GOOD) - 1])
def test_a_truncated_bundle_is_refused(length: int) -> None:
    with pytest.raises(BundleError):
        opened(GOOD[:length])


@pytest.mark.parametrize("extra", [b"\0", b"\n", GOOD[-256:], GOOD])
def test_trailing_data_is_refused(extra: bytes) -> None:
    with pytest.raises((BundleError, TrustError)), opened(GOOD + extra) as bundle:
        bundle.verify([bundles.KEY])


def test_leading_data_is_refused() -> None:
    with pytest.raises(BundleError):
        opened(b"#!/bin/sh\n" + GOOD)


def test_the_seal_of_another_key_is_refused() -> None:
    stranger = public_of(generate())
    with opened(GOOD) as bundle:
        for trusted in ([stranger], []):
            with pytest.raises(SignatureError, match="trusted keys"):
                bundle.verify(trusted)
    lie = msgspec.structs.replace(parse_seal(GOOD[-256:]), key_id=stranger.keyid).encode()
    with opened(GOOD[: -len(lie)] + lie) as bundle, pytest.raises(SignatureError, match="not by the key"):
        bundle.verify([stranger])


def test_a_key_on_p256_seals_too() -> None:
    private = generate("ecdsa-p256")
    manifest, content = bundles.files()
    out = io.BytesIO()
    write_archive(out, {MANIFEST: encode_manifest(manifest), **content}, signer=signer_of(private))
    with opened(out.getvalue()) as bundle:
        assert bundle.verify([public_of(private), bundles.KEY]) == hashlib.sha256(out.getvalue()).hexdigest()
        with pytest.raises(SignatureError):
            bundle.verify([bundles.KEY])
    seal = parse_seal(out.getvalue()[-256:])
    lie = msgspec.structs.replace(seal, signature=bytes(64)).encode()
    with opened(out.getvalue()[: -len(lie)] + lie) as bundle, pytest.raises(SignatureError):
        bundle.verify([public_of(private)])


def test_a_seal_does_not_speak_for_another_bundle() -> None:
    other = bundles.bundle(version="1.3.0")
    seal = parse_seal(other[-256:]).encode()
    with opened(GOOD[: -len(seal)] + seal) as bundle, pytest.raises(SignatureError):
        bundle.verify([bundles.KEY])


def test_a_file_other_than_the_sealed_one_is_refused_even_with_a_good_seal() -> None:
    manifest, content = bundles.files()
    content["variants/fp32/model.onnx"] = b"GRAPH"
    with opened(bundles.archive(manifest, content)) as bundle:
        with pytest.raises(DigestError, match=r"model\.onnx has the SHA-256"):
            bundle.verify([bundles.KEY])
        with pytest.raises(DigestError, match=r"model\.onnx has the SHA-256"):
            bundle.read("variants/fp32/model.onnx", most=100)


def zipped(*, compression: int = zipfile.ZIP_STORED, comment: bool = True) -> bytes:
    """Return the good bundle's files as Python's own zipfile writes them, with a good seal."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as target, zipfile.ZipFile(io.BytesIO(GOOD)) as source:
        for name in source.namelist():
            target.writestr(name, source.read(name))
        if comment:
            target.comment = source.comment
    data = out.getvalue()
    if not comment:
        return data
    seal = make_seal(bundles.SIGNER, hashlib.sha256(data[: -len(source.comment)]).digest())
    return data[: -len(source.comment)] + seal.encode()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_of_another_form_is_refused_though_it_is_signed(compression: int) -> None:
    with pytest.raises(BundleError, match="canonical"):
        opened(zipped(compression=compression))


def resealed(data: bytes, at: int) -> bytes:
    """Return a bundle with one bit flipped at an offset, and a good seal over that."""
    seal = parse_seal(data[-256:])
    changed = bytearray(data[: -len(seal.encode())])
    changed[at] ^= 1
    return bytes(changed) + make_seal(bundles.SIGNER, hashlib.sha256(changed).digest()).encode()


@pytest.mark.parametrize("field", [4, 6, 8, 10, 12, 14, 36, 38, 40], ids=lambda at: f"byte {at}")
@pytest.mark.parametrize("where", ["directory", "local header"])
def test_a_free_field_of_zip_is_refused_though_it_is_signed(where: str, field: int) -> None:
    """Version, flags, method, time, date and checksum; in the directory attributes, in the header its padding."""
    start = GOOD.index(b"PK\x01\x02") if where == "directory" else GOOD.index(b"PK\x03\x04", 4)
    if where == "local header":
        field = {36: 30, 38: 28, 40: 26}.get(field, field)
    with pytest.raises(BundleError):
        opened(resealed(GOOD, start + field))


def test_a_zip_without_a_seal_is_refused() -> None:
    with pytest.raises(BundleError, match="seal"):
        opened(zipped(comment=False))


@pytest.mark.parametrize(
    "name",
    [
        "../escape",
        "/etc/passwd",
        "a/../../b",
        "a//b",
        "./a",
        "A",
        "a b",
        ".git",
        "a/.hidden",
        "con",
        "nul.txt",
        "a.",
        "a\\b",
        "c:a",
        "",
        "a/",
        "x" * 121,
        "a/b/c/d/e",
        "a\x00b",
        "a\x1b[31m",
    ],
)
def test_a_path_that_could_do_harm_is_refused_by_writer_and_reader(name: str) -> None:
    manifest, content = bundles.files()
    with pytest.raises(BundleError):
        bundles.archive(manifest, {**content, name: b"x"})
    # What a hand-made archive would say: the same length, so that only the name is wrong.
    plain = "p" * max(1, min(len(name), 120))
    if len(name) != len(plain):
        return
    forged = bundles.archive(manifest, {**content, plain: b"x"}).replace(plain.encode(), name.encode("latin-1"))
    with pytest.raises(BundleError):
        opened(forged)


def test_a_path_with_other_letters_is_refused() -> None:
    manifest, content = bundles.files()
    with pytest.raises(BundleError):
        opened(bundles.archive(manifest, {**content, "pp": b"x"}).replace(b"pp", b"\xc3\xa9"))


def test_a_file_where_a_folder_is_is_refused() -> None:
    manifest, content = bundles.files()
    with pytest.raises(BundleError, match="folder"):
        bundles.archive(manifest, {**content, "variants/fp32": b"x"})


def test_one_path_twice_is_refused() -> None:
    manifest, content = bundles.files()
    forged = bundles.archive(manifest, {**content, "pa": b"x", "pb": b"x"}).replace(b"pb", b"pa")
    with pytest.raises(BundleError, match="each once"):
        opened(forged)


def test_a_file_that_the_manifest_does_not_name_is_refused() -> None:
    manifest, content = bundles.files()
    with pytest.raises(BundleError, match=r"'stowaway\.bin', which its manifest does not list"):
        opened(bundles.archive(manifest, {**content, "stowaway.bin": b"x"}))


def test_a_file_that_is_missing_is_refused() -> None:
    manifest, content = bundles.files()
    del content["bom.cdx.json"]
    with pytest.raises(BundleError, match="missing"):
        opened(bundles.archive(manifest, content))


def test_a_manifest_in_another_form_is_refused() -> None:
    manifest, content = bundles.files()
    loose = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    out = io.BytesIO()
    write_archive(out, {MANIFEST: loose, **content}, signer=bundles.SIGNER)
    with pytest.raises(BundleError, match="canonical"):
        opened(out.getvalue())


def changed(manifest: Manifest, **fields: object) -> Manifest:
    return msgspec.structs.replace(manifest, **fields)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"format_version": 2}, "format version 2"),
        ({"product": "KWS"}, "product"),
        ({"product": "../kws"}, "product"),
        ({"version": "1.2"}, "not a version"),
        ({"version": "1.02.3"}, "not a version"),
        ({"version": "-1.0.0"}, "not a version"),
        ({"security_floor": "1.2.1"}, "security floor"),
        ({"chosen": "int8"}, "chosen variant 'int8'"),
        ({"fallback": "int8"}, "fallback variant 'int8'"),
        ({"variants": ()}, "0 variants"),
        ({"files": ()}, "its manifest does not list"),
        ({"model_digest": "abc"}, "SHA-256"),
        ({"model_signature_key": "0" * 64}, "model.sig, which is missing"),
        ({"inputs": ()}, "golden input"),
        ({"outputs": ()}, "golden output"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(fields: dict[str, object], named: str) -> None:
    manifest, content = bundles.files()
    with pytest.raises(BundleError, match=named.replace(".", r"\.")):
        opened(bundles.archive(changed(manifest, **fields), content))


@pytest.mark.parametrize(
    "fields",
    [{"offset": 1}, {"offset": 1 << 40}, {"offset": -64}, {"size": 3}, {"shape": (16, 41)}, {"shape": (-16, -40)}],
)
def test_a_tensor_outside_its_file_or_of_another_length_is_refused(fields: dict[str, object]) -> None:
    manifest, content = bundles.files()
    variant = manifest.variants[0]
    tensors = (msgspec.structs.replace(variant.tensors[0], **fields), *variant.tensors[1:])
    bad = changed(manifest, variants=(msgspec.structs.replace(variant, tensors=tensors),))
    with pytest.raises(BundleError, match="tensor"):
        opened(bundles.archive(bad, content))


def test_tensors_that_overlap_are_refused() -> None:
    manifest, content = bundles.files()
    variant = manifest.variants[0]
    twice = changed(manifest, variants=(msgspec.structs.replace(variant, tensors=variant.tensors[:1] * 2),))
    with pytest.raises(BundleError, match="overlap"):
        opened(bundles.archive(twice, content))


def test_a_file_larger_than_asked_for_is_not_read() -> None:
    with opened(GOOD) as bundle, pytest.raises(BundleError, match="at most 10"):
        bundle.read(bundles.WEIGHTS, most=10)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with opened(GOOD) as bundle, pytest.raises(BundleError, match="holds no file"):
        bundle.read("nothing.bin", most=10)
    with pytest.raises(BundleError, match="No such file"):
        Bundle.open(tmp_path / "nowhere.edgewise")
    with pytest.raises(BundleError, match="directory"):
        Bundle.open(tmp_path)
