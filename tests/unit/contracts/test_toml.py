from __future__ import annotations

import pytest

from edgewise.contracts.project import Effort, Project
from edgewise.contracts.rules import RULES, converted
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.toml_ import MOST_LINES, parse_project, sections
from edgewise.errors import ConfigError

GOOD = """\
[model]
path = "model.onnx"

[task]
calibrate = "calibrate.npz"
"""

FULL = """\
# Everything that can be said.
[model]
path = "model.onnx"
inputs.image = [1, 3, 224, 224]

[task]
kind = "my_task.py:MyTask"
calibrate = "data/calibrate.npz"
select = "data/select.npz"
test = "data/test.npz"
samples = 256

[task.detection]
layout = "yolox"
strides = [8, 16]
threshold = 0.1
overlap = 0.5

[task.image]
resize = 256
crop = 224
scale = 255
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
layout = "nhwc"

[task.audio]
rate = 8000
samples = 16000

[task.text]
tokenizer = "tokenizer.json"
max_tokens = 64

[target]
profile = "local"
threads = 2
runtimes = ["openvino", "onnxruntime"]

[budget]
latency_p50_ms = 4
latency_p99_ms = 5.0
peak_memory_mib = 64
size_mib = 4
energy_mj = 3.0
accuracy_drop = 0
flip_rate = 0.02

[search]
effort = "thorough"
seed = 7
workers = 2
"""

# (lines after GOOD, line, what the message says)
BAD = {
    "unknown key": ("[budget]\nlatency_p99 = 5", 7, '[budget] unknown key "latency_p99"', 'mean "latency_p99_ms"?'),
    "unknown unit in a key": ("[budget]\nlatency_p99_us = 5", 7, '"latency_p99_us"', 'did you mean "latency_p99_ms"?'),
    "key of another section": ("[search]\nthreads = 2", 7, '[search] unknown key "threads"', "belongs to [target]"),
    "nearest key of another section": ("[search]\npeak_memory = 2", 7, '"peak_memory"', "peak_memory_mib"),
    "unknown key unlike any": ("[search]\nqqq = 2", 7, '[search] unknown key "qqq"', "one of effort, seed, workers"),
    "unknown section": ("[budgets]\nsize_mib = 4", 6, "unknown section [budgets]", "did you mean [budget]?"),
    "unknown section within one": ("[task.imgae]\ncrop = 4", 6, "[task.imgae]", "did you mean [task.image]?"),
    "unit in the value": ('[budget]\nlatency_p99_ms = "5 ms"', 7, '"5 ms"', "number of milliseconds"),
    "unit in the value, converted": ('[budget]\nlatency_p99_ms = "0.5s"', 7, '"0.5s"', "write latency_p99_ms = 500"),
    "size with a unit": ('[budget]\nsize_mib = "512 KiB"', 7, '"512 KiB"', "write size_mib = 0.5"),
    "energy with a unit": ('[budget]\nenergy_mj = "1 J"', 7, '"1 J"', "write energy_mj = 1000"),
    "per cent": ('[budget]\nflip_rate = "2 %"', 7, '"2 %"', "write flip_rate = 0.02"),
    "number as text": ('[target]\nthreads = "4"', 7, 'threads = "4"', "a whole number from 1 to 1024"),
    "text without a number": ('[budget]\nsize_mib = "small"', 7, '"small"', "a number of MiB, above 0"),
    "negative limit": ("[budget]\nlatency_p50_ms = -1", 7, "latency_p50_ms = -1", "above 0"),
    "zero limit": ("[budget]\npeak_memory_mib = 0", 7, "peak_memory_mib = 0", "above 0"),
    "nan": ("[budget]\nsize_mib = nan", 7, "size_mib = nan", "a number of MiB"),
    "infinite": ("[budget]\nenergy_mj = inf", 7, "energy_mj = inf", "a number of millijoules"),
    "overflows": ("[budget]\naccuracy_drop = 1e999", 7, "accuracy_drop = inf", "0 or more"),
    "integer beyond floats": ("[budget]\nsize_mib = 1" + "0" * 400, 7, "size_mib = 1000", "above 0"),
    "negative drop": ("[budget]\naccuracy_drop = -0.1", 7, "accuracy_drop = -0.1", "0 or more"),
    "flip rate above one": ("[budget]\nflip_rate = 2", 7, "flip_rate = 2", "from 0 to 1"),
    "boolean for a number": ("[budget]\nsize_mib = true", 7, "size_mib = true", "a number of MiB"),
    "date for a number": ("[budget]\nsize_mib = 1979-05-27", 7, "1979-05-27", "a number of MiB"),
    "no threads": ("[target]\nthreads = 0", 7, "threads = 0", "from 1"),
    "absurd threads": ("[target]\nthreads = 100000", 7, "threads = 100000", "to 1024"),
    "fraction of a thread": ("[target]\nthreads = 1.5", 7, "threads = 1.5", "a whole number"),
    "unknown runtime": ('[target]\nruntimes = ["onnxruntme"]', 7, '["onnxruntme"]', 'did you mean "onnxruntime"?'),
    "runtime not in a list": ('[target]\nruntimes = "openvino"', 7, '"openvino"', 'write runtimes = ["openvino"]'),
    "runtime twice": ('[target]\nruntimes = ["openvino", "openvino"]', 7, "openvino", "without repeats"),
    "no runtime": ("[target]\nruntimes = []", 7, "runtimes = []", "a list"),
    "table as a runtime": ("[target]\nruntimes = [{}]", 7, "runtimes = [{...}]", "a list"),
    "empty profile": ('[target]\nprofile = " "', 7, 'profile = " "', "the name of a target profile"),
    "unknown effort": ('[search]\neffort = "thorogh"', 7, '"thorogh"', 'did you mean "thorough"?'),
    "negative seed": ("[search]\nseed = -1", 7, "seed = -1", "from 0 to 4294967295"),
    "no workers": ("[search]\nworkers = 0", 7, "workers = 0", "from 1 to 1024"),
    "unknown kind": ('kind = "clasification"', 6, '"clasification"', 'did you mean "classification"?'),
    "kind in capitals": ('kind = "Detection"', 6, '"Detection"', 'did you mean "detection"?'),
    "class without its file": ('kind = "MyTask"', 6, '"MyTask"', '"file.py:Class"'),
    "no samples": ("samples = 0", 6, "samples = 0", "1 or more"),
    "empty path": ('test = ""', 6, 'test = ""', "the path of an npz file"),
    "path with a null": ('test = "a\\u0000b"', 6, "test =", "the path of an npz file"),
    "test is calibrate": ('test = "./calibrate.npz"', 6, "which is also calibrate", "share no sample"),
    "select is test": ('select = "a.npz"\ntest = "b/../a.npz"', 7, "which is also select", "share no sample"),
    "threshold above one": ("[task.detection]\nthreshold = 50", 7, "threshold = 50", "from 0 to 1"),
    "no strides": ("[task.detection]\nstrides = []", 7, "strides = []", "a list of whole numbers"),
    "unknown layout": ('[task.image]\nlayout = "nchv"', 7, '"nchv"', 'did you mean "nchw"?'),
    "std of zero": ("[task.image]\nstd = [1, 0]", 7, "std = [1, 0]", "numbers above 0"),
    "std unlike mean": ("[task.image]\nmean = [0, 0, 0]\nstd = [1, 1]", 8, "std has 2 numbers", "as many of one"),
    "crop beyond resize": ("[task.image]\nresize = 8\ncrop = 9", 8, "crop = 9 is larger", "crop = 8 or less"),
    "no scale": ("[task.image]\nscale = 0", 7, "scale = 0", "above 0"),
    "rate of zero": ("[task.audio]\nrate = 0", 7, "rate = 0", "Hz"),
    "tokens of zero": ("[task.text]\nmax_tokens = 0", 7, "max_tokens = 0", "tokens"),
    "dynamic axis": ("[model.inputs]\ny = [1]\nx = [1, -1]", 8, "[model.inputs] x = [1, -1]", "0 leaves"),
    "shape that is none": ("[model]\ninputs = 3", 6, "is not TOML", "correct that line"),
    "section as a value": ("[search]\n[target]\n[task.text]\ntokenizer = {}", 9, "tokenizer = {...}", "tokenizer.json"),
    "value as a section": ("image = 3", 6, "[task] image = 3", "write [task.image] on a line of its own"),
    "list of sections": ("[[budget]]\nsize_mib = 4", 6, "[[budget]] is a list of sections", "write [budget]"),
    "key twice": ("[budget]\nsize_mib = 1\nsize_mib = 2", 8, "is not TOML: cannot overwrite a value", "size_mib = 2"),
    "section twice": ("[task]", 6, "is not TOML", "[task]"),
    "section not closed": ("[budget", 6, "is not TOML", "`[budget`"),
    "no value": ("[budget]\nsize_mib =", 7, "is not TOML", "size_mib ="),
    "number of many digits": ("[search]\nseed = " + "9" * 5000, 7, "is not TOML", "digits"),
}


def test_a_short_project_takes_every_default() -> None:
    project = parse_project(GOOD, source="edgewise.toml")
    assert project.model.path == "model.onnx"
    assert project.task.calibrate == "calibrate.npz"
    assert project.budget.limits() == {}
    assert project.search.effort is Effort.DEFAULT


def test_a_full_project_keeps_every_value() -> None:
    project = parse_project(FULL, source="edgewise.toml")
    assert project.model.inputs == {"image": (1, 3, 224, 224)}
    assert project.task.image.mean == (0.485, 0.456, 0.406)
    assert project.task.detection.strides == (8, 16)
    assert project.target.runtimes == (RuntimeName.OPENVINO, RuntimeName.ONNXRUNTIME)
    assert project.budget.limits() == {
        "latency_p50_ms": 4.0,
        "latency_p99_ms": 5.0,
        "peak_memory_mib": 64.0,
        "size_mib": 4.0,
        "energy_mj": 3.0,
        "accuracy_drop": 0.0,
        "flip_rate": 0.02,
    }
    assert project.search.seed == 7


def test_the_splits_of_an_own_task_are_names_and_may_be_alike() -> None:
    project = parse_project(GOOD + 'kind = "t.py:T"\ntest = "calibrate.npz"', source="edgewise.toml")
    assert project.task.test == project.task.calibrate


@pytest.mark.parametrize("text", ["\ufeff" + GOOD, GOOD.replace("\n", "\r\n")], ids=["byte-order mark", "CRLF"])
def test_files_of_other_editors_are_read(text: str) -> None:
    assert parse_project(text, source="edgewise.toml") == parse_project(GOOD, source="edgewise.toml")


@pytest.mark.parametrize(("lines", "line", "found", "help_"), BAD.values(), ids=BAD)
def test_a_wrong_project_is_refused(lines: str, line: int, found: str, help_: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_project(GOOD + lines, source="some/edgewise.toml")
    message = str(caught.value)
    assert message.startswith(f"some/edgewise.toml:{line} ")
    assert found in message
    assert help_ in message
    assert caught.value.required
    assert caught.value.next_step
    assert len(message) < 500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "edgewise.toml: the section [model] is missing"),
        ('[model]\npath = "m.onnx"', "edgewise.toml: the section [task] is missing"),
        ('[task]\ncalibrate = "c.npz"\n\n[model]\n', 'edgewise.toml:4 [model] the key "path" is missing'),
        ('size_mib = 4\n[model]\npath = "m.onnx"', 'edgewise.toml:1 unknown key "size_mib"'),
        ("model = 3", "edgewise.toml:1 model = 3"),
        ("x = " + "[" * 5000 + "]" * 5000, "edgewise.toml: it is nested too deeply"),
    ],
    ids=["empty", "no section", "no key", "key above all sections", "no table", "nested deeply"],
)
def test_what_is_missing_or_misplaced_is_said(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_project(text, source="edgewise.toml")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('model.path = "m.onnx"\ntask.calibrate = "c"\nbudget.size_mib = 0', 3),
        ('model = { path = "m.onnx" }\ntask = { calibrate = "c", samples = 0 }', 2),
        ('[model]\npath = """\n[budget]\nsize_mib = 0\n"""\n[task]\ncalibrate = "c"\n[budget]\n"size_mib" = 0', 9),
        (GOOD + "[task.image]\nmean = [\n 0,  # one\n [2],\n]\n", 7),
        (GOOD + "# note\n\n[ target ] # note\n  threads=0", 9),
    ],
    ids=["dotted keys", "inline tables", "section within a text", "value of several lines", "blanks and notes"],
)
def test_the_line_is_that_of_the_statement(text: str, line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_project(text, source="edgewise.toml")
    assert str(caught.value).startswith(f"edgewise.toml:{line} ")


def test_a_file_of_absurd_length_is_refused_without_a_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_project(GOOD + "\n" * MOST_LINES + "[budget]\nsize_mib = 0", source="edgewise.toml")
    assert str(caught.value).startswith("edgewise.toml: [budget] size_mib = 0")


def test_every_key_has_a_rule_and_every_rule_a_key() -> None:
    found = sections(Project)
    keys = {(*path, name) for path, kind in found.items() for name in kind.__struct_fields__} - set(found)
    assert set(RULES) == keys


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("latency_p99_ms", "250us", 0.25),
        ("latency_p99_ms", "5", 5.0),
        ("size_mib", "1 GB", 953.674),
        ("size_mib", "4 ms", None),
        ("size_mib", "-4 MiB", None),
        ("flip_rate", "200 %", None),
        ("accuracy_drop", "1%", 0.01),
        ("energy_mj", 3.0, None),
    ],
)
def test_values_with_units_are_converted_where_they_can_be(key: str, text: object, value: float | None) -> None:
    assert converted(RULES["budget", key], text) == value
