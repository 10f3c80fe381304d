from __future__ import annotations

import pickle  # noqa: TID251 - datasets travel to worker processes
import struct
import wave
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from edgewise.contracts.task import AudioOptions, ImageOptions, TaskConfig
from edgewise.errors import DataError
from edgewise.forge.data.labels import Labelled, has_integer_labels
from edgewise.forge.data.open import open_dataset
from edgewise.forge.data.sounds import read_sound
from edgewise.forge.tasks.base import Array
from edgewise.runtimes.base import TensorSpec

NCHW = TensorSpec("image", "float32", (None, 3, 8, 8))
WAVE = TensorSpec("audio", "float32", (None, 160))


def picture(path: Path, *, size: tuple[int, int] = (8, 8), seed: int = 0, mode: str = "RGB") -> Array:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return pixels


def sound(path: Path, *, rate: int = 16000, samples: int = 160, channels: int = 1, width: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(bytes(range(256)) * (1 + samples * channels * width // 256))


def opened(
    path: Path, spec: TensorSpec = NCHW, *, image: ImageOptions | None = None, audio: AudioOptions | None = None
) -> Labelled:
    config = TaskConfig(calibrate="c", image=image or ImageOptions(), audio=audio or AudioOptions())
    return open_dataset(path, config=config, inputs=(spec,))


def test_a_folder_per_class_gives_labels_in_sorted_order(tmp_path: Path) -> None:
    for number, name in enumerate(("dog", "cat", "dog", "eel")):
        picture(tmp_path / name / f"{number}.png", seed=number)
    dataset = opened(tmp_path)
    assert dataset.targets == (0, 1, 1, 2)
    assert has_integer_labels(dataset)
    assert dataset[3].target == 2


def test_folders_that_are_numbers_are_the_classes(tmp_path: Path) -> None:
    for name in ("10", "2"):
        picture(tmp_path / name / "a.png")
    assert sorted(opened(tmp_path).targets or ()) == [2, 10]


def test_a_table_gives_labels_and_the_order(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    (tmp_path / "labels.csv").write_text("file,label\nb.png,5\na.png,3\n")
    assert opened(tmp_path).targets == (5, 3)
    outside = tmp_path / "other.csv"
    outside.write_text("file,label\na.png,1\n")
    assert opened(outside).targets == (1,)


def test_a_table_may_stand_beside_the_folder_of_its_name(tmp_path: Path) -> None:
    picture(tmp_path / "test" / "a.png")
    (tmp_path / "test.tsv").write_text("file\tlabel\na.png\t1\n")
    assert opened(tmp_path / "test.tsv").targets == (1,)


def test_a_plain_folder_has_no_labels_and_says_what_it_left_out(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "readme.txt").write_text("hello")
    dataset = opened(tmp_path)
    assert dataset.targets is None
    assert dataset.warnings == (f"{tmp_path}: 1 files are neither images nor sounds and were left out",)


def test_pixels_are_scaled_and_normalised(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "a.png")
    options = ImageOptions(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    feed = opened(tmp_path, image=options)[0].feeds["image"]
    expected = ((pixels / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]).transpose(2, 0, 1)[None]
    assert feed.dtype == np.float32
    assert feed == pytest.approx(expected, abs=1e-6)
    raw = opened(tmp_path, TensorSpec("image", "uint8", (1, 8, 8, 3)), image=ImageOptions(layout="nhwc"))
    assert np.array_equal(raw[0].feeds["image"][0], pixels)


def test_the_shorter_side_is_resized_and_the_centre_cut_out(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", size=(40, 20))
    assert opened(tmp_path, image=ImageOptions(resize=10, crop=8))[0].feeds["image"].shape == (1, 3, 8, 8)
    pixels = picture(tmp_path / "a.png", size=(10, 12))
    (tmp_path / "a.jpg").unlink()
    feed = opened(tmp_path, image=ImageOptions(crop=8, scale=1))[0].feeds["image"]
    assert np.array_equal(feed[0].transpose(1, 2, 0), pixels[2:10, 1:9])


@pytest.mark.parametrize("shape", [(None, 1, 8, 8), (None, 8, 8), (None, 1, None, None)])
def test_grey_models_get_grey_images(tmp_path: Path, shape: tuple[int | None, ...]) -> None:
    picture(tmp_path / "a.png")
    feed = opened(tmp_path, TensorSpec("image", "float32", shape))[0].feeds["image"]
    assert feed.shape in ((1, 1, 8, 8), (1, 8, 8))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_other_colours_become_rgb(tmp_path: Path, mode: str) -> None:
    if mode == "RGBA":
        picture(tmp_path / "a.png")
        Image.open(tmp_path / "a.png").convert("RGBA").save(tmp_path / "a.png")
    else:
        picture(tmp_path / "a.png", mode=mode)
    assert opened(tmp_path)[0].feeds["image"].shape == (1, 3, 8, 8)


def bomb(path: Path, side: int) -> None:
    """Write a PNG of a few kilobytes that says it is `side` x `side`."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(10000), 9)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


@pytest.mark.parametrize(("side", "said"), [(9000, "81000000 pixels"), (100_000, "bomb")])
def test_decompression_bombs_are_refused(tmp_path: Path, side: int, said: str) -> None:
    bomb(tmp_path / "a.png", side)
    with pytest.raises(DataError, match=said):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("options", "shape", "said"),
    [
        (ImageOptions(layout="chw"), (None, 3, 8, 8), "nchw or nhwc"),
        (ImageOptions(mean=(1.0, 2.0)), (None, 3, 8, 8), "mean has 2 values"),
        (ImageOptions(std=(0.0,)), (None, 3, 8, 8), "std is 0"),
        (ImageOptions(), (None, 8, 8, 3), "layout is the other one"),
        (ImageOptions(), (None, 192), "an image"),
        (ImageOptions(), (None, 3, 9, 9), "resize, crop and layout"),
        (ImageOptions(crop=9), (None, 3, 9, 9), "at least 9"),
    ],
)
def test_options_that_do_not_fit(
    tmp_path: Path, options: ImageOptions, shape: tuple[int | None, ...], said: str
) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match=said):
        opened(tmp_path, TensorSpec("image", "float32", shape), image=options)


def test_folders_that_are_no_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images and no sounds"):
        opened(tmp_path)
    picture(tmp_path / "a.png")
    picture(tmp_path / "dog" / "a.png")
    with pytest.raises(DataError, match="both files"):
        opened(tmp_path)
    (tmp_path / "a.png").unlink()
    sound(tmp_path / "dog" / "b.wav")
    with pytest.raises(DataError, match="only images or only sounds"):
        opened(tmp_path)


def test_images_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(DataError, match="not a readable image"):
        opened(tmp_path)
    picture(tmp_path / "a.png")
    dataset = opened(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png"):
        dataset[0]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("file,label\ngone.png,1\n", r"names 'gone\.png'"),
        ("file,label\na.png,dog\n", "is 'dog'"),
        ("file,label\na.png\n", "line 2"),
        ("file,label\na.png,1,2\n", "line 2"),
        ("file,label\n", "no samples"),
        ("", "columns none"),
        ("name,label\na.png,1\n", "columns name, label"),
        ('file,label\n"a.png,1\n', "cannot be read"),
    ],
)
def test_tables_that_are_wrong(tmp_path: Path, table: str, said: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(DataError, match=said):
        opened(tmp_path)


def test_tables_in_other_encodings_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_bytes("file,label\nä.png,1".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        opened(tmp_path)


def test_a_model_with_two_inputs_cannot_be_fed_by_files(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match="one input"):
        open_dataset(tmp_path, config=TaskConfig(calibrate="c"), inputs=(NCHW, WAVE))


@pytest.mark.parametrize("name", ["gone.npz", "data.parquet"])
def test_paths_that_are_no_data(tmp_path: Path, name: str) -> None:
    (tmp_path / "data.parquet").write_text("x")
    with pytest.raises(DataError, match=name):
        opened(tmp_path / name)


def test_digest_and_fingerprint_follow_the_bytes(tmp_path: Path) -> None:
    picture(tmp_path / "dog" / "a.png")
    picture(tmp_path / "dog" / "b.png")
    picture(tmp_path / "dog" / "c.png", seed=1)
    dataset = opened(tmp_path)
    assert dataset.fingerprint(0) == dataset.fingerprint(1) != dataset.fingerprint(2)
    before = dataset.digest()
    assert pickle.loads(pickle.dumps(dataset)).digest() == before  # noqa: S301 - written here
    picture(tmp_path / "dog" / "c.png", seed=2)
    assert opened(tmp_path).digest() != before
    with pytest.raises(IndexError):
        dataset[3]


@pytest.mark.parametrize(("width", "step"), [(1, 1 / 128), (2, 2**-15), (3, 2**-23), (4, 2**-31)])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_is_read_as_soundfile_reads_it(tmp_path: Path, width: int, step: float, channels: int) -> None:
    path = tmp_path / "a.wav"
    sound(path, width=width, channels=channels)
    signal, rate = read_sound(path)
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == 16000
    assert signal == pytest.approx(expected.mean(1), abs=max(step * 0.01, 1e-7))


def test_other_sounds_are_read_by_soundfile(tmp_path: Path) -> None:
    signal = np.random.default_rng(0).uniform(-1, 1, 160)
    soundfile.write(tmp_path / "a.flac", signal, 16000)
    soundfile.write(tmp_path / "b.wav", signal, 16000, subtype="FLOAT")
    for name in ("a.flac", "b.wav"):
        assert read_sound(tmp_path / name)[0] == pytest.approx(signal, abs=1e-4)


@pytest.mark.parametrize(("samples", "shape"), [(100, (1, 160)), (160, (1, 160)), (500, (1, 160))])
def test_sounds_are_cut_or_padded_to_the_model(tmp_path: Path, samples: int, shape: tuple[int, ...]) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(samples, 0.5), 16000)
    feed = opened(tmp_path, WAVE)[0].feeds["audio"]
    assert feed.shape == shape
    assert feed[0, 0] == 0.5
    assert (feed[0, -1] == 0) == (samples < 160)


def test_texts_are_targets(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    (tmp_path / "labels.tsv").write_text('file\ttext\na.wav\tsay "hello"\n')
    any_length = TensorSpec("audio", "float32", (1, 1, None))
    dataset = opened(tmp_path, any_length, audio=AudioOptions(samples=77))
    assert dataset[0].target == 'say "hello"'
    assert dataset[0].feeds["audio"].shape == (1, 1, 77)


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        (WAVE, AudioOptions(rate=8000), "16000 samples per second"),
        (WAVE, AudioOptions(samples=80), r"\[task\.audio\] samples"),
        (WAVE, AudioOptions(samples=0), "not positive"),
        (TensorSpec("mel", "float32", (1, 80, 10, 1)), AudioOptions(), "a waveform"),
        (TensorSpec("audio", "int64", (1, 160)), AudioOptions(), "a waveform"),
    ],
)
def test_sound_options_that_do_not_fit(tmp_path: Path, spec: TensorSpec, options: AudioOptions, said: str) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(160, 0.5), 16000)
    with pytest.raises(DataError, match=said):
        opened(tmp_path, spec, audio=options)


def test_sounds_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_text("hello")
    with pytest.raises(DataError, match="not a readable sound"):
        opened(tmp_path, WAVE)
    (tmp_path / "a.flac").unlink()
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 16000)
    with pytest.raises(DataError, match="holds no sound"):
        opened(tmp_path, WAVE)
