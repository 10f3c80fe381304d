from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from edgewise.bundle.delta_apply import apply
from edgewise.bundle.delta_make import make_delta
from edgewise.bundle.model_signature import key_digest
from edgewise.bundle.read import Bundle
from edgewise.bundle.tensors import read_tensor
from edgewise.bundle.write import Source, encode_manifest, sealed_file, write_archive
from edgewise.cli.main import run
from edgewise.contracts.manifest import Golden
from edgewise.contracts.pipeline import Gate, ModelStage, PipelineManifest
from edgewise.errors import BundleError, DataError, EdgewiseError, SignatureError, UnsignedFileError
from edgewise.fleet import publish
from edgewise.forge.seal.joining import join
from edgewise.forge.seal.sealing import Label
from edgewise.keys.files import save_pair
from edgewise.keys.pair import generate, public_of, signer_of
from tests.unit.bundle import staged
from tests.unit.bundle.bundles import KEY, PRIVATE, SIGNER
from tests.unit.bundle.staged import joined

Change = Callable[[PipelineManifest, dict[str, Source]], PipelineManifest]


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return joined(tmp_path_factory.mktemp("voice"))[0]


def contents(path: Path) -> tuple[PipelineManifest, dict[str, Source]]:
    with Bundle.open(path) as found:
        assert isinstance(found.sealed, PipelineManifest)
        content: dict[str, Source] = {each.path: found.read(each.path, most=1 << 20) for each in found.sealed.files}
        return found.sealed, content


def test_several_bundles_become_one_that_verifies(voice: Path) -> None:
    with Bundle.open(voice) as found:
        found.verify([KEY])
        assert isinstance(found.sealed, PipelineManifest)
        assert [each.name for each in found.sealed.inputs] == ["sound"]
        assert [each.name for each in found.sealed.outputs] == ["listener.level", "head.scores"]
        loud, quiet = found.sealed.golden_outputs.samples
        assert [each.tensor.name for each in loud] == ["listener.level", "head.scores"]
        assert [each.tensor.name for each in quiet] == ["listener.level"]  # the gate kept it out
        data = found.read(found.sealed.golden_outputs.path, most=1 << 20)
        expected = staged.LOUD @ np.arange(12, dtype=np.float32).reshape(4, 3)
        assert np.allclose(read_tensor(data, loud[1].tensor), expected, atol=1e-6)
        with pytest.raises(BundleError, match="several stages"):
            _ = found.manifest
        document = found.read("bom.cdx.json", most=1 << 20).decode()
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(document) is None
        assert b"| head | head 1.0.0 |" in found.read("card.md", most=1 << 20)


def test_an_item_of_several_values_is_read_as_it_was_sealed(tmp_path: Path) -> None:
    """A manifest sorts its keys: what is given first in the description is not what is read first."""
    path, made = joined(tmp_path, changes=staged.STATELESS)
    with Bundle.open(path) as found:
        assert found.sealed == made.manifest
        assert [each.name for each in found.sealed.inputs] == ["before", "sound"]


def test_a_server_takes_it_as_any_other(voice: Path) -> None:
    found = publish.check(voice, [KEY])
    assert (found.product, found.version, sorted(found.shown)) == ("kws", "1.0.0", ["bom.cdx.json", "card.md"])


def test_the_same_bundles_and_key_give_the_same_bytes(voice: Path, tmp_path: Path) -> None:
    assert joined(tmp_path)[0].read_bytes() == voice.read_bytes()


def test_a_change_of_one_stage_is_a_small_delta_that_is_exact(voice: Path, tmp_path: Path) -> None:
    old, new = voice.read_bytes(), joined(tmp_path, "1.0.1", factor=1.5)[0].read_bytes()
    delta = make_delta(old, new)
    assert delta is not None
    out = io.BytesIO()
    with Bundle(io.BytesIO(new), name="new") as found:
        apply(old, io.BytesIO(delta.data), out.write, digest=found.digest())
    assert out.getvalue() == new


def test_a_stage_of_a_stranger_is_refused_unless_trusted(tmp_path: Path) -> None:
    path = staged.stages(tmp_path)
    output = tmp_path / "out.edgewise"
    other = generate()
    label = Label(product="voice", version="1.0.0")
    with pytest.raises(SignatureError):
        join(path, output, label=label, signer=signer_of(other))
    assert not output.exists()
    join(path, output, label=label, signer=signer_of(other), trusted=[KEY])
    with Bundle.open(output) as found:
        found.verify([public_of(other)])


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('x = "sound"', 'x = "head.scores"', "no stage before gives"),
        ('h_in = "h_out"', 'h_in = "level"', "state"),
        ("state = { h_in", "state = { other", "is given"),
        ('"listener.features"', '"listener.level"', "input"),
        ("at_least = 0.5", "at_least = nan", "gate"),
        ("at_least = 0.5", "atleast = 0.5", "atleast"),
        ("[stages.head]", "[stages.golden]", "golden"),
        ("[stages.head]", '[stages."../head"]', "a stage"),
        ('"head.scores"]', '"head.other"]', "output"),
        ("deadline_ms = 20000", "deadline_ms = 0", "deadline"),
        ('"head.edgewise"', '"none.edgewise"', "No such file"),
    ],
)
def test_a_pipeline_that_does_not_fit_is_refused(before: str, after: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(EdgewiseError, match=words):
        joined(tmp_path, changes=(before, after))
    assert not list(tmp_path.glob("kws-*"))


def test_a_gate_that_no_golden_input_opens_is_told_or_refused(tmp_path: Path) -> None:
    assert joined(tmp_path)[1].unreached == ()
    assert joined(tmp_path, changes=("at_least = 0.5", "at_least = 9"))[1].unreached == ("head",)
    path = staged.stages(tmp_path)
    closed = staged.DESCRIPTION.replace("0.5", "9").replace('"listener.level", ', "", 1)
    path.write_text(closed)
    with pytest.raises(DataError, match="no golden input"):
        join(path, tmp_path / "o", label=Label(product="a", version="1.0.0"), signer=SIGNER)


def of_head(manifest: PipelineManifest, **changes: object) -> PipelineManifest:
    first, second = manifest.pipeline.stages
    stages = (first, msgspec.structs.replace(second, **changes))
    return msgspec.structs.replace(manifest, pipeline=msgspec.structs.replace(manifest.pipeline, stages=stages))


def with_golden(manifest: PipelineManifest, golden: Golden) -> PipelineManifest:
    return msgspec.structs.replace(manifest, golden=golden)


def added(manifest: PipelineManifest, content: dict[str, Source]) -> PipelineManifest:
    content["head/more.bin"] = b"more"
    return manifest


def cut(manifest: PipelineManifest, _: dict[str, Source]) -> PipelineManifest:
    stages, outputs = manifest.pipeline.stages[:1], manifest.pipeline.outputs[:1]
    pipeline = msgspec.structs.replace(manifest.pipeline, stages=stages, outputs=outputs)
    return msgspec.structs.replace(manifest, pipeline=pipeline, outputs=manifest.outputs[:1])


def swapped(manifest: PipelineManifest, content: dict[str, Source]) -> PipelineManifest:
    """Put another file of the same size in the place of one that its stage sealed, and sign that."""
    whole = content["head/card.md"]
    assert isinstance(whole, bytes)
    content["head/card.md"] = whole[:-1] + b"!"
    listed = tuple(sealed_file(path, source) for path, source in sorted(content.items()))
    return msgspec.structs.replace(manifest, files=listed)


CHANGES: dict[str, Change] = {
    "another file than its stage sealed": swapped,
    "another digest": lambda manifest, _: of_head(manifest, bundle="0" * 64),
    "the other's digest": lambda manifest, _: of_head(manifest, bundle=manifest.pipeline.stages[0].bundle),
    "a stage that is not there": lambda manifest, _: of_head(manifest, name="tail"),
    "a stage twice": lambda manifest, _: of_head(manifest, name="listener"),
    "a variant that is not there": lambda manifest, _: of_head(manifest, variant="int8"),
    "another form": lambda manifest, _: of_head(manifest, inputs={"x": "listener.level"}),
    "a value of nobody": lambda manifest, _: of_head(manifest, inputs={"x": "listener.none"}),
    "an input of nobody": lambda manifest, _: of_head(manifest, inputs={"x": "listener.features", "z": "sound"}),
    "a gate on nothing": lambda manifest, _: of_head(manifest, when=Gate(value="listener.none", at_least=1.0)),
    "a mailbox of none": lambda manifest, _: of_head(manifest, mailbox="block(0)"),
    "other ports": lambda manifest, _: msgspec.structs.replace(manifest, outputs=manifest.outputs[:1]),
    "no golden input": lambda manifest, _: with_golden(manifest, msgspec.structs.replace(manifest.golden, samples=())),
    "golden inputs elsewhere": lambda manifest, _: with_golden(
        manifest, msgspec.structs.replace(manifest.golden, path="golden/none.bin")
    ),
    "a file that nobody lists": added,
    "a stage left out": cut,
    "many stages": lambda manifest, _: msgspec.structs.replace(
        manifest,
        pipeline=msgspec.structs.replace(
            manifest.pipeline,
            stages=tuple(
                ModelStage(name=f"s{at}", bundle="0" * 64, inputs={"x": "sound"}, mailbox="block(1)")
                for at in range(40)
            ),
        ),
    ),
    "a signature that is missing": lambda manifest, _: msgspec.structs.replace(
        manifest, model_signature_key=key_digest(KEY)
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_manifest_that_contradicts_its_stages_is_refused(name: str, voice: Path) -> None:
    manifest, content = contents(voice)
    changed = CHANGES[name](manifest, content)
    out = io.BytesIO()
    write_archive(out, {"manifest.json": encode_manifest(changed), **content}, signer=SIGNER)
    with pytest.raises((BundleError, UnsignedFileError)):
        Bundle(out, name="changed")


def test_a_pipeline_is_no_stage(voice: Path, tmp_path: Path) -> None:
    staged.stages(tmp_path)
    (tmp_path / "head.edgewise").write_bytes(voice.read_bytes())
    label = Label(product="a", version="1.0.0")
    with pytest.raises(BundleError, match="several stages"):
        join(tmp_path / "voice.toml", tmp_path / "o", label=label, signer=SIGNER)


def test_the_command_seals_shows_and_verifies(place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    staged.stages(place)
    save_pair(PRIVATE, place / "stages.pem", passphrase=None)
    command = ["seal", "voice.toml", "-o", "voice-1.0.0.edgewise", "--key", "seal.pem", "--trust", "stages.pub"]
    assert run(command) == 0
    assert run(["bundle", "verify", "voice-1.0.0.edgewise", "--key", "seal.pub", "--model-key", "seal-model.pub"]) == 0
    capsys.readouterr()
    assert run(["bundle", "show", "voice-1.0.0.edgewise"]) == 0
    shown = capsys.readouterr().out
    assert "stage    head: head 1.0.0, block(1), here, when listener.level >= 0.5" in shown
    assert run(["bundle", "show", "voice-1.0.0.edgewise", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"]["pipeline"]["deadline_ms"] == 20000
    assert run(["bundle", "diff", "voice-1.0.0.edgewise", "voice-1.0.0.edgewise"]) == 0
    assert run(["bundle", "extract", "voice-1.0.0.edgewise", str(tmp_path / "out"), "--key", "seal.pub"]) == 0
    assert (tmp_path / "out" / "head" / "manifest.json").is_file()
    assert run(["seal", "run", "-o", "a-1.0.0.edgewise", "--key", "seal.pem", "--trust", "stages.pub"]) == 2
    assert "--trust without a pipeline" in capsys.readouterr().err
    assert run([*command, "--only-chosen"]) == 2
    assert "a pipeline" in capsys.readouterr().err
