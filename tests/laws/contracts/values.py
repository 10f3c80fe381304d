"""Strategies for contract values, drawn from the types of their fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from hypothesis import strategies as st

Kind = TypeVar("Kind", bound=msgspec.Struct)

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
"""What JSON can hold: a figure that is not finite is None in a document, never a number."""


def values_of(kind: type[Kind], **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Kind]:
    """Return a strategy for a value; `fixed` replaces the strategy of a field."""
    drawn: Mapping[str, st.SearchStrategy[Any]] = {
        field.name: fixed.get(field.name, of_type(msgspec.inspect.type_info(field.type)))
        for field in msgspec.structs.fields(kind)
    }
    return st.builds(kind, **drawn)


def of_type(info: msgspec.inspect.Type) -> st.SearchStrategy[Any]:  # noqa: C901, PLR0911 - one case per kind of type
    """Return a strategy for a field's type; a kind of field not seen before is an error."""
    match info:
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.IntType():
            return st.integers(-(2**53), 2**53)
        case msgspec.inspect.FloatType():
            return NUMBERS
        case msgspec.inspect.StrType():
            return st.text(max_size=8)
        case msgspec.inspect.EnumType(cls=cls):
            return st.sampled_from(list(cls))
        case msgspec.inspect.UnionType(types=types):
            return st.one_of([of_type(each) for each in types])
        case msgspec.inspect.VarTupleType(item_type=item):
            return st.lists(of_type(item), max_size=3).map(tuple)
        case msgspec.inspect.DictType(value_type=item):
            return st.dictionaries(st.text(max_size=8), of_type(item), max_size=3)
        case msgspec.inspect.StructType(cls=cls):
            return values_of(cls)
    raise NotImplementedError(info)
