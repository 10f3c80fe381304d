"""What a user gets wrong with keys, seals and bundles: one message, no traceback, nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgewise.bundle.delta_make import make_delta
from edgewise.cli.main import run
from edgewise.keys.files import save_pair
from edgewise.keys.pair import generate
from tests.unit.bundle import bundles

SEAL = ["seal", "run", "-o", "kws-1.0.0.edgewise", "--key", "seal.pem"]

BAD: dict[str, tuple[list[str], str]] = {
    "no such run": (SEAL, "run"),
    "an output without a version": (["seal", "run", "-o", "kws.edgewise", "--key", "seal.pem"], "PRODUCT-VERSION"),
    "a version of two numbers": ([*SEAL, "--version", "1.2"], "three or four"),
    "a version with a letter": ([*SEAL, "--version", "1.2.x"], "three or four"),
    "a floor above the version": ([*SEAL, "--security-floor", "2.0.0"], "at most the version 1.0.0"),
    "a product with a slash": ([*SEAL, "--product", "../kws"], "a-z"),
    "an output that is a folder": (
        ["seal", "run", "-o", "folder", "--key", "seal.pem", "--version", "1.0.0"],
        "product",
    ),
    "an output in no folder": (["seal", "run", "-o", "no/kws-1.0.0.edgewise", "--key", "seal.pem"], "does not exist"),
    "no such key": ([*SEAL[:4], "--key", "nowhere.pem"], "nowhere.pem"),
    "a public key to sign with": ([*SEAL[:4], "--key", "seal.pub"], "private"),
    "a key without its passphrase": ([*SEAL[:4], "--key", "locked.pem"], "passphrase"),
    "a wrong passphrase": ([*SEAL[:4], "--key", "locked.pem", "--passphrase-file", "wrong.txt"], "passphrase"),
    "no key for the model signature": ([*SEAL[:4], "--key", "alone.pem"], "keys generate alone-model.pem"),
    "an Ed25519 model key": ([*SEAL, "--model-key", "alone.pem"], "P-256"),
    "a model key and none": ([*SEAL, "--model-key", "seal-model.pem", "--no-model-signature"], "one or the other"),
    "a key service that is not there": ([*SEAL[:4], "--key", "hsm:2"], "public"),
    "no such bundle": (["bundle", "show", "nowhere.edgewise"], "No such file"),
    "a bundle that is a folder": (["bundle", "show", "folder"], "directory"),
    "a bundle that is empty": (["bundle", "show", "empty"], "seal"),
    "a bundle that is a text": (["bundle", "verify", "wrong.txt", "--key", "seal.pub"], "seal"),
    "a bundle cut off": (["bundle", "show", "cut.edgewise"], "seal"),
    "no key to verify with": (["bundle", "verify", "good.edgewise"], "--key"),
    "a key that is not there": (["bundle", "verify", "good.edgewise", "--key", "nowhere.pub"], "nowhere.pub"),
    "a private key to verify with": (["bundle", "verify", "good.edgewise", "--key", "seal.pem"], "not a public key"),
    "a bundle sealed by somebody else": (["bundle", "verify", "good.edgewise", "--key", "alone.pub"], "trusted keys"),
    "a model signature that is not there": (
        ["bundle", "verify", "good.edgewise", "--key", "good.pub", "--model-key", "seal-model.pub"],
        "no model.sig",
    ),
    "extract to a folder that is there": (["bundle", "extract", "good.edgewise", "folder"], "exists"),
    "extract with another key": (["bundle", "extract", "good.edgewise", "out", "--key", "alone.pub"], "trusted keys"),
    "extract a text": (["bundle", "extract", "wrong.txt", "out"], "seal"),
    "diff with nothing": (["bundle", "diff", "good.edgewise", "nowhere.edgewise"], "No such file"),
    "diff with a text": (["bundle", "diff", "wrong.txt", "good.edgewise"], "seal"),
    "a delta from nothing": (["bundle", "delta", "nowhere.edgewise", "good.edgewise", "-o", "d"], "No such file"),
    "a delta from a text": (["bundle", "delta", "wrong.txt", "good.edgewise", "-o", "d"], "seal"),
    "a delta to a cut bundle": (["bundle", "delta", "good.edgewise", "cut.edgewise", "-o", "d"], "seal"),
    "a delta into no folder": (["bundle", "delta", "good.edgewise", "good.edgewise", "-o", "no/d"], "No such file"),
    "a patch that nobody vouches for": (["bundle", "patch", "good.edgewise", "long.txt", "-o", "n"], "--digest"),
    "a patch that is a text": (
        ["bundle", "patch", "good.edgewise", "long.txt", "-o", "n", "--key", "good.pub"],
        "does not begin like a delta",
    ),
    "a patch that is empty": (["bundle", "patch", "good.edgewise", "empty", "-o", "n", "--digest", "0"], "delta"),
    "a patch that is a bundle": (
        ["bundle", "patch", "good.edgewise", "good.edgewise", "-o", "n", "--digest", "0"],
        "does not begin like a delta",
    ),
    "a patch that is not there": (
        ["bundle", "patch", "good.edgewise", "no", "-o", "n", "--digest", "0"],
        "no: No such",
    ),
    "a patch of another bundle": (
        ["bundle", "patch", "cut.edgewise", "good.delta", "-o", "n", "--key", "good.pub"],
        "another bundle",
    ),
    "a patch onto a folder": (
        ["bundle", "patch", "good.edgewise", "good.delta", "-o", "folder", "--key", "good.pub"],
        "folder: ",
    ),
    "a patch to another digest": (
        ["bundle", "patch", "good.edgewise", "good.delta", "-o", "n", "--digest", "0" * 64],
        "the signed one",
    ),
    "a patch sealed by somebody else": (
        ["bundle", "patch", "good.edgewise", "good.delta", "-o", "n", "--key", "alone.pub"],
        "trusted keys",
    ),
    "a patch into no folder": (
        ["bundle", "patch", "good.edgewise", "good.delta", "-o", "no/n", "--key", "good.pub"],
        "No such file",
    ),
    "a key that is there": (["keys", "generate", "seal.pem", "--passphrase-file", "long.txt"], "exists"),
    "a key whose model key is there": (["keys", "generate", "locked.pem", "--passphrase-file", "long.txt"], "exists"),
    "a key of another name": (["keys", "generate", "seal.key", "--passphrase-file", "long.txt"], ".pem"),
    "a key without a passphrase": (["keys", "generate", "new.pem"], "passphrase"),
    "a key with a short passphrase": (["keys", "generate", "new.pem", "--passphrase-file", "short.txt"], "at least 8"),
    "a key with an empty passphrase": (["keys", "generate", "new.pem", "--passphrase-file", "empty"], "empty"),
    "a passphrase file that is not there": (["keys", "generate", "n.pem", "--passphrase-file", "no.txt"], "no.txt"),
    "a key of an unknown kind": (["keys", "generate", "new.pem", "--kind", "rsa"], "rsa"),
    "a key in a file's place": (["keys", "generate", "empty/new.pem", "--passphrase-file", "long.txt"], "empty"),
    "show a private key": (["keys", "show", "seal.pem"], "private"),
    "show a text": (["keys", "show", "wrong.txt"], "not a public key"),
    "show nothing": (["keys", "show", "nowhere.pub"], "nowhere.pub"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEWISE_PASSPHRASE", raising=False)
    (tmp_path / "folder").mkdir()
    texts = {"empty": "", "wrong.txt": "not the one\n", "long.txt": "five random words\n", "short.txt": "1234567\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    save_pair(generate(), tmp_path / "seal.pem", passphrase=None)
    save_pair(generate("ecdsa-p256"), tmp_path / "seal-model.pem", passphrase=None)
    save_pair(generate(), tmp_path / "alone.pem", passphrase=None)
    save_pair(generate(), tmp_path / "locked.pem", passphrase=b"the right one")
    save_pair(bundles.PRIVATE, tmp_path / "good.pem", passphrase=None)
    (tmp_path / "good.edgewise").write_bytes(bundles.bundle())
    made = make_delta(bundles.bundle(), bundles.bundle(version="1.3.0"))
    assert made is not None
    (tmp_path / "good.delta").write_bytes(made.data)
    (tmp_path / "cut.edgewise").write_bytes(bundles.bundle()[:-7])
    return tmp_path


@pytest.mark.parametrize(("arguments", "named"), BAD.values(), ids=BAD)
def test_it_is_refused_in_one_message(
    arguments: list[str], named: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(each.relative_to(place) for each in place.rglob("*"))
    assert run(arguments) in {1, 2}
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("error: ") == 1
    assert named in told.err
    assert "Traceback" not in told.err
    assert sorted(each.relative_to(place) for each in place.rglob("*")) == before


def test_a_key_is_made_shown_and_never_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "generate", "new.pem", "--passphrase-file", "long.txt", "--json"]) == 0
    told = capsys.readouterr()
    made = json.loads(told.out)
    assert [each["kind"] for each in made] == ["ed25519", "ecdsa-p256"]
    assert "five random" not in told.out + told.err
    assert "PRIVATE" not in told.out + told.err
    assert (place / "new.pem").stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in (place / "new.pem").read_bytes()
    assert run(["keys", "show", "new.pub", "new-model.pub", "--json"]) == 0
    assert [each["key_id"] for each in json.loads(capsys.readouterr().out)] == [each["key_id"] for each in made]


def test_a_delta_is_made_and_applied(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "new.edgewise").write_bytes(bundles.bundle(version="1.3.0"))
    assert run(["bundle", "delta", "good.edgewise", "new.edgewise", "-o", "d", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["delta_bytes"] == (place / "d").stat().st_size
    assert run(["bundle", "patch", "good.edgewise", "d", "-o", "made.edgewise", "--key", "good.pub"]) == 0
    assert (place / "made.edgewise").read_bytes() == bundles.bundle(version="1.3.0")
    weights = {"conv": np.random.default_rng(1).integers(-128, 128, 100_000, np.int8)}
    (place / "other.edgewise").write_bytes(bundles.bundle(weights=weights))
    assert run(["bundle", "delta", "good.edgewise", "other.edgewise", "-o", "none"]) == 0
    assert "full" in capsys.readouterr().out
    assert not (place / "none").exists()
