"""Turns the zoo's tasks into prepared data folders, with the preprocessing of its eval.py.

    python zoo.py --zoo DIR --cache DIR [TASK ...]      (in the judge's environment)

A prepared folder is what `edgewise optimize MODEL --data DIR` takes:

    model.onnx      fp32
    calibrate.npz   `x` (or one array per input name), float32 and model-ready
    test.npz        the same, plus `y` for classification

Text rows are padded with zeros to the longest sentence (an npz holds rectangles) and carry
their `attention_mask`; tokens in even rows are first sentences of the pairs, in odd rows the
second ones. `prepared.json`, written last, marks a folder as complete.
"""

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

FORMAT = 1  # raise to have every cache made anew
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
IMAGENET_STD = np.array([0.229, 0.224, 0.225])
YOLOX_SIDE, YOLOX_GREY = 416, 114
MINILM_TOKENS = 128

Split = dict[str, np.ndarray]


def arrays(folder: Path, divide: float | None) -> tuple[Split, Split]:
    """calibrate.npz and test.npz as they are, as float32, divided by a number or not."""

    def read(name: str) -> Split:
        with np.load(folder / name) as data:
            x = data["x"].astype(np.float32)
            split = {"x": x if divide is None else x / divide}
            return split | ({"y": data["y"].astype(np.int64)} if "y" in data.files else {})

    return read("calibrate.npz"), read("test.npz")


def resnet8(folder: Path) -> tuple[Split, Split]:
    """RGB 0..255, NHWC, nothing else."""
    return arrays(folder, None)


def dscnn(folder: Path) -> tuple[Split, Split]:
    """MFCC as stored, [n,1,49,10]."""
    return arrays(folder, None)


def vww(folder: Path) -> tuple[Split, Split]:
    """RGB / 255, NHWC."""
    return arrays(folder, 255)


def mobilenetv2(folder: Path) -> tuple[Split, Split]:
    """Centre crop 224, / 255, ImageNet mean and standard deviation, NCHW."""

    def read(paths: list[Path]) -> np.ndarray:
        x = np.empty((len(paths), 3, 224, 224), np.float32)
        for i, path in enumerate(paths):
            image = Image.open(path).convert("RGB")
            left, top = (image.width - 224) // 2, (image.height - 224) // 2
            pixels = np.asarray(image.crop((left, top, left + 224, top + 224))) / 255.0
            x[i] = ((pixels - IMAGENET_MEAN) / IMAGENET_STD).transpose(2, 0, 1)
        return x

    with (folder / "labels.csv").open(newline="", encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    test = {"x": read([folder / "test" / row["file"] for row in rows]), "y": np.array([int(r["label"]) for r in rows])}
    return {"x": read(sorted((folder / "calibrate").glob("*.jpg")))}, test


def yolox(folder: Path) -> tuple[Split, Split]:
    """Scaled to fit 416, top left on grey 114, / 255, ImageNet mean and standard deviation, NCHW."""

    def read(paths: list[Path]) -> np.ndarray:
        x = np.empty((len(paths), 3, YOLOX_SIDE, YOLOX_SIDE), np.float32)
        for i, path in enumerate(paths):
            image = Image.open(path).convert("RGB")
            ratio = min(YOLOX_SIDE / image.width, YOLOX_SIDE / image.height)
            small = image.resize((int(image.width * ratio), int(image.height * ratio)), Image.Resampling.BILINEAR)
            canvas = np.full((YOLOX_SIDE, YOLOX_SIDE, 3), YOLOX_GREY, np.float32)
            canvas[: small.height, : small.width] = np.asarray(small)
            x[i] = ((canvas / 255 - IMAGENET_MEAN) / IMAGENET_STD).transpose(2, 0, 1)
        return x

    with np.load(folder / "test.npz") as data:
        names = [str(name) for name in data["name"]]
    calibrate = read(sorted((folder / "calibrate").glob("*.jpg")))
    return {"x": calibrate}, {"x": read([folder / "images" / name for name in names])}


def minilm(folder: Path) -> tuple[Split, Split]:
    """Token numbers of both sentences of every pair, first and second in turn."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MINILM_TOKENS)
    tokenizer.no_padding()

    def read(path: Path) -> Split:
        with path.open(newline="", encoding="utf8") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        encoded = tokenizer.encode_batch([row[key] for row in rows for key in ("sentence1", "sentence2")])
        ids = np.zeros((len(encoded), max(len(e.ids) for e in encoded)), np.int64)
        mask = np.zeros_like(ids)
        for i, sentence in enumerate(encoded):
            ids[i, : len(sentence.ids)] = sentence.ids
            mask[i, : len(sentence.ids)] = 1
        return {"input_ids": ids, "attention_mask": mask}

    return read(folder / "calibrate.tsv"), read(folder / "test.tsv")


PREPARE: dict[str, Callable[[Path], tuple[Split, Split]]] = {
    "resnet8-cifar10": resnet8,
    "dscnn-kws": dscnn,
    "mobilenetv1-vww": vww,
    "mobilenetv2-imagenet": mobilenetv2,
    "yolox-nano-coco128": yolox,
    "minilm-stsb": minilm,
}


def is_prepared(folder: Path) -> bool:
    """Whether `folder` is complete and of this script's format."""
    stamp = folder / "prepared.json"
    return stamp.exists() and json.loads(stamp.read_text())["format"] == FORMAT


def prepare(task: str, zoo: Path, cache: Path) -> None:
    """Fill `cache/task`; the model of a task that ships none must already lie there."""
    folder = cache / task
    folder.mkdir(parents=True, exist_ok=True)
    if (zoo / task / "model.onnx").exists():
        shutil.copyfile(zoo / task / "model.onnx", folder / "model.onnx")
    calibrate, test = PREPARE[task](zoo / task)
    np.savez(folder / "calibrate.npz", allow_pickle=False, **calibrate)
    np.savez(folder / "test.npz", allow_pickle=False, **test)
    shapes = {
        name: {key: [*array.shape] for key, array in split.items()}
        for name, split in (("calibrate", calibrate), ("test", test))
    }
    (folder / "prepared.json").write_text(json.dumps({"format": FORMAT, "shapes": shapes}))


def main() -> None:
    """Prepare the tasks that are not in the cache yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("tasks", nargs="*", default=list(PREPARE))
    args = parser.parse_args()
    for task in args.tasks:
        if not is_prepared(args.cache / task):
            print(f"preparing {task}", file=sys.stderr, flush=True)
            prepare(task, args.zoo, args.cache)


if __name__ == "__main__":
    main()
