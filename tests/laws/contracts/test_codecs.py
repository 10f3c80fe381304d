from __future__ import annotations

from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewise.contracts.base import Value
from edgewise.contracts.budget import Budget
from edgewise.contracts.evidence import Candidate
from edgewise.contracts.project import Project
from edgewise.contracts.recipe import Recipe
from edgewise.contracts.run import Run
from edgewise.contracts.schema import run_schema
from edgewise.contracts.target import Target
from tests.laws.contracts.values import values_of

LARGE = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
VALIDATOR = jsonschema.Draft202012Validator(msgspec.json.decode(run_schema()))


@pytest.mark.parametrize("kind", [Budget, Recipe, Candidate, Target, Project], ids=lambda kind: kind.__name__)
@LARGE
@given(data=st.data())
def test_json_gives_back_what_it_was_given(kind: type[Value], data: st.DataObject) -> None:
    value = data.draw(values_of(kind))
    assert msgspec.json.decode(msgspec.json.encode(value), type=kind) == value


@LARGE
@given(run=values_of(Run))
def test_a_run_document_is_given_back_and_follows_its_schema(run: Run) -> None:
    text = msgspec.json.encode(run)
    assert msgspec.json.decode(text, type=Run) == run
    VALIDATOR.validate(msgspec.json.decode(text))


@LARGE
@given(run=values_of(Run), key=st.text(min_size=1).filter(lambda key: key not in Run.__struct_fields__))
def test_an_unknown_key_is_refused_by_codec_and_schema(run: Run, key: str) -> None:
    document: dict[str, Any] = msgspec.to_builtins(run)
    document[key] = 1
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(document, Run)
    assert not VALIDATOR.is_valid(document)
