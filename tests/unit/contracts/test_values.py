from __future__ import annotations

import pickle  # noqa: TID251 - errors cross a process pool, which pickles them
import re
from typing import TypeVar

import msgspec
import pytest

import edgewise.contracts.project
import edgewise.contracts.run  # noqa: F401 - defines values
from edgewise import errors
from edgewise.contracts.base import Value
from edgewise.contracts.recipe import Format, Granularity, Recipe, RegionRecipe

Kind = TypeVar("Kind")

RECIPE = b"""{
  "name": "mixed",
  "regions": [
    {"region": "conv1", "format": "int8_static", "range_method": "percentile_99.99", "bias_correction": true},
    {"region": "fc", "format": "int4_weight", "granularity": "block", "block": 32, "smooth_alpha": 0.5}
  ]
}"""


def every(kind: type[Kind]) -> list[type[Kind]]:
    found: list[type[Kind]] = []
    for child in kind.__subclasses__():
        found += [child, *every(child)]
    return found


def test_a_recipe_is_read_by_the_words_of_its_file() -> None:
    recipe = msgspec.json.decode(RECIPE, type=Recipe)
    first, second = recipe.regions
    assert first.format is Format.INT8_STATIC
    assert first.granularity is Granularity.CHANNEL
    assert first.bias_correction
    assert (second.format, second.block, second.smooth_alpha) == (Format.INT4_WEIGHT, 32, 0.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (b'{"region": "a", "format": "int7"}', "int7"),
        (b'{"region": "a", "format": "int8_static", "rounding": 3}', "rounding"),
        (b'{"region": "a", "format": "int8_static", "blok": 32}', "blok"),
        (b'{"format": "int8_static"}', "region"),
    ],
    ids=["unknown format", "wrong type", "unknown key", "missing key"],
)
def test_a_wrong_recipe_is_refused_by_name(wrong: bytes, message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.json.decode(wrong, type=RegionRecipe)


CONTRACTS = [kind for kind in every(Value) if kind.__module__.startswith("edgewise.contracts.")]


@pytest.mark.parametrize("kind", CONTRACTS, ids=lambda kind: kind.__name__)
def test_values_are_frozen_strict_and_keyword_only(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen
    assert kind.__struct_config__.forbid_unknown_fields
    with pytest.raises(TypeError, match="positional"):
        kind(1)


@pytest.mark.parametrize("kind", [errors.EdgewiseError, *every(errors.EdgewiseError)], ids=lambda kind: kind.__name__)
def test_errors_survive_a_process_pool(kind: type[errors.EdgewiseError]) -> None:
    error = kind("found", required="required", next_step="next")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(copy) is kind
    assert (copy.found, copy.required, copy.next_step) == ("found", "required", "next")
    assert str(copy) == "found\nrequired: required\nnext: next"


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    drawn = dict(re.findall(r"\+-- (\w+) .*?(?:\(exit (\d)\))?$", errors.__doc__ or "", re.MULTILINE))
    kinds = {kind.__name__: kind for kind in every(errors.EdgewiseError)}
    assert drawn.keys() == kinds.keys()
    assert {name: int(code) for name, code in drawn.items() if code} == {
        name: kinds[name].exit_code for name, code in drawn.items() if code
    }
