from __future__ import annotations

import copy
import io
import pickle  # noqa: TID251 - to see that a secret is not pickled
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from edgewise.contracts.outcome import OutcomeKind
from edgewise.contracts.task import ImageOptions
from edgewise.device import Runtime
from edgewise.device.fallback.conservative import Conservative
from edgewise.device.fallback.options import CloudOptions, CloudProtocol, FallbackOptions
from edgewise.device.fallback.png import pixels_of, png_of
from edgewise.device.fallback.secret import read_secret
from edgewise.errors import ConfigError, EdgewiseError, UnsafeAddressError
from tests.unit.device.bundles import SURE, extracted

URL = "https://cloud.example/v1"


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_normalised_image_becomes_the_pixels_it_was_made_of(layout: str, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    options = ImageOptions(mean=(0.485, 0.456, 0.406)[:channels], std=(0.229, 0.224, 0.225)[:channels], layout=layout)
    tensor = ((pixels / 255 - np.array(options.mean)) / np.array(options.std)).astype(np.float32)
    tensor = (np.moveaxis(tensor, -1, 0) if layout == "nchw" else tensor)[None]
    found = pixels_of(tensor, options)
    assert found is not None
    image = np.asarray(Image.open(io.BytesIO(png_of(found))))
    assert np.array_equal(image.reshape(pixels.shape), pixels)


@pytest.mark.parametrize(
    "tensor",
    [
        np.zeros((1, 2, 4, 4), np.float32),
        np.zeros((2, 3, 4, 4), np.float32),
        np.zeros((3, 4, 4), np.float32),
        np.full((1, 3, 2, 2), np.nan, np.float32),
        np.full((1, 3, 2, 2), np.inf, np.float32),
        np.zeros((1, 3, 2, 2), np.bool_),
    ],
)
def test_what_is_no_image_is_not_drawn(tensor: np.ndarray[Any, Any]) -> None:
    assert pixels_of(tensor, ImageOptions()) is None


def test_a_key_is_read_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("  sk-1234\n")
    monkeypatch.setenv("A_KEY", "sk-5678")
    for secret, text in (
        (read_secret(file=str(tmp_path / "key"), variable=""), "sk-1234"),
        (read_secret(file="", variable="A_KEY"), "sk-5678"),
    ):
        assert secret is not None
        assert secret.reveal() == text
        assert text not in f"{secret} {secret!r} {[secret]}"
        for leak in (pickle.dumps, copy.copy):
            with pytest.raises(TypeError):
                leak(secret)
    assert read_secret(file="", variable="") is None


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"a\r\nX-Admin: 1", b"\xffkey", b"k\x00y", b"x" * 5000])
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        read_secret(file=str(tmp_path / "key"), variable="")
    assert "Admin" not in str(refused.value)
    with pytest.raises(ConfigError):
        read_secret(file=str(tmp_path / "absent"), variable="")
    with pytest.raises(ConfigError):
        read_secret(file="", variable="NOT_SET_ANYWHERE")


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"url": "http://cloud.example/v1"}, ConfigError),
        ({"url": "http://10.0.0.1/v1"}, ConfigError),
        ({"url": "ftp://cloud.example/v1"}, UnsafeAddressError),
        ({"url": "https://user:word@cloud.example/v1"}, UnsafeAddressError),
        ({"url": "https://cloud.example/v1?key=sk-1"}, ConfigError),
        ({"url": URL, "model": ""}, ConfigError),
        ({"url": URL, "parameters": {"messages": 1}}, ConfigError),
        ({"url": URL, "ca_file": "absent.pem"}, ConfigError),
        ({"url": URL, "key_file": "absent"}, ConfigError),
    ],
)
def test_a_server_that_cannot_be_used_is_refused_at_opening(
    tmp_path: Path, options: dict[str, Any], kind: type[EdgewiseError]
) -> None:
    options = {"model": "judge", **options}
    with pytest.raises(kind):
        Runtime.open(extracted(tmp_path), fallback=FallbackOptions(cloud=CloudOptions(**options)))


@pytest.mark.parametrize("url", [URL, "http://127.0.0.1:1/v1", "http://[::1]:1/v1", "http://localhost:1/v1"])
@pytest.mark.parametrize("protocol", CloudProtocol)
def test_https_and_this_machine_are_allowed(tmp_path: Path, url: str, protocol: CloudProtocol) -> None:
    options = CloudOptions(url=url, model="judge", protocol=protocol)
    Runtime.open(extracted(tmp_path), fallback=FallbackOptions(cloud=options))


@pytest.mark.parametrize(
    "text",
    [
        b'{"cloud": {"url": "https://a", "reserve_ms": -1}}',
        b'{"cloud": {"url": "https://a", "timeout_s": 0}}',
        b'{"cloud": {"url": "https://a", "attempts": 0}}',
        b'{"cloud": {"url": "https://a", "key_file": "k", "key_env": "K"}}',
        b'{"cloud": {"url": "https://a", "breaker": {"failures": 0}}}',
        b'{"cloud": {"url": "https://a", "breaker": {"rest_s": 0}}}',
        b'{"cloud": {"url": "https://a", "budget": {"burst": 0}}}',
        b'{"cloud": {"url": "https://a", "api_key": "sk-1"}}',
        b'{"cloud": {}}',
        b'{"reserve_ms": -1}',
    ],
)
def test_options_that_cannot_be_are_refused_when_read(text: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=FallbackOptions)


def test_a_class_can_be_the_conservative_answer(tmp_path: Path) -> None:
    folder = extracted(tmp_path)
    runtime = Runtime.open(folder, fallback=FallbackOptions(conservative=Conservative(label="turn")))
    answer = runtime.infer(SURE, deadline_ms=0.0)
    assert (answer.outcome.kind, answer.outcome.reason) == (OutcomeKind.CONSERVATIVE, "no time left")
    assert answer.outputs["y"].tolist() == [[0.0, 0.0, 1.0]]
    wrong = runtime.infer({"x": np.zeros((1, 3, 1, 2), np.float32)})
    assert wrong.outcome.kind is OutcomeKind.CONSERVATIVE
    assert wrong.outputs["y"].tolist() == [[0.0, 0.0, 1.0]]
    with pytest.raises(ConfigError, match="fly"):
        Runtime.open(folder, fallback=FallbackOptions(conservative=Conservative(label="fly")))
