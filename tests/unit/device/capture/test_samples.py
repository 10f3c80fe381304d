from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from edgewise.cli.main import run
from edgewise.contracts.capture import SEALED_SAMPLE
from edgewise.device.capture.samples import CONSENT, Samples
from edgewise.errors import DataError, KeyFileError, OutputError
from edgewise.keys.sealed import load_sealing, load_unsealing, unseal

KEY = X25519PrivateKey.generate()
SECRET = {"image": np.arange(64, dtype=np.float32).reshape(1, 64)}


def opened(folder: Path, limit_bytes: int = 1 << 20) -> Samples:
    return Samples(folder, KEY.public_key(), limit_bytes=limit_bytes)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.sample"))


def test_nothing_is_kept_without_consent(tmp_path: Path) -> None:
    assert opened(tmp_path).keep(SECRET) is False
    assert files(tmp_path) == []


def test_what_is_kept_opens_with_the_operators_key_only(tmp_path: Path) -> None:
    samples = opened(tmp_path)
    samples.consent("the owner, for a month")
    assert samples.keep(SECRET)
    (path,) = files(tmp_path)
    sealed = path.read_bytes()
    assert SECRET["image"].tobytes()[16:64] not in sealed
    with np.load(io.BytesIO(unseal(sealed, KEY, SEALED_SAMPLE)), allow_pickle=False) as found:
        np.testing.assert_array_equal(found["image"], SECRET["image"])
    for key, info, message in (
        (X25519PrivateKey.generate(), SEALED_SAMPLE, sealed),
        (KEY, b"another use", sealed),
        (KEY, SEALED_SAMPLE, sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (KEY, SEALED_SAMPLE, b""),
    ):
        with pytest.raises(DataError):
            unseal(message, key, info)


def test_withdrawing_deletes_everything_also_where_it_was_cut_short(tmp_path: Path) -> None:
    samples = opened(tmp_path)
    samples.consent("yes")
    samples.keep(SECRET)
    samples.withdraw()
    assert list(tmp_path.iterdir()) == []
    assert samples.keep(SECRET) is False
    samples.consent("yes")
    samples.keep(SECRET)
    (tmp_path / CONSENT).unlink()  # and then the power went
    opened(tmp_path)
    assert files(tmp_path) == []


def test_the_oldest_go_where_there_is_no_room(tmp_path: Path) -> None:
    samples = opened(tmp_path)
    samples.consent("yes")
    samples.keep(SECRET)
    size = files(tmp_path)[0].stat().st_size
    samples = opened(tmp_path, limit_bytes=3 * size + 1)
    assert all(samples.keep(SECRET) for _ in range(5))
    assert [int(each.stem) for each in files(tmp_path)] == [3, 4, 5]
    assert opened(tmp_path, limit_bytes=size - 1).keep(SECRET) is False


def test_a_folder_or_key_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        opened(tmp_path / "file" / "samples")
    for load in (load_sealing, load_unsealing):
        for path in (tmp_path / "file", tmp_path / "none"):
            with pytest.raises(KeyFileError, match="openssl genpkey"):
                load(path)


def test_an_operator_opens_a_folder_of_them_as_a_pool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = opened(tmp_path / "samples")
    samples.consent("yes")
    for number in range(3):
        samples.keep({"file": SECRET["image"] + number})
    pem, pool = tmp_path / "capture.pem", tmp_path / "pool.npz"
    pem.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    command = ["data", "unseal", str(tmp_path / "samples"), "--key", str(pem), "--output", str(pool)]
    assert run(command) == 2  # no passphrase
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWISE_PASSPHRASE", "secret")
        assert run(command) == 0
        with np.load(pool, allow_pickle=False) as found:
            np.testing.assert_array_equal(found["file"], np.concatenate([SECRET["image"] + each for each in range(3)]))
        pool.unlink()
        samples.keep({"another": SECRET["image"]})
        assert run(command) == 2  # of two models
        (tmp_path / "samples" / f"{9:012d}.sample").write_bytes(b"torn")
        assert run(command) == 2
        (tmp_path / "none").mkdir()
        assert run([*command[:2], str(tmp_path / "none"), *command[3:]]) == 2
    assert not pool.exists()
    assert "Traceback" not in capsys.readouterr().err
