from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from edgewise.contracts.project import Project
from edgewise.contracts.rules import RULES
from edgewise.contracts.toml_ import parse_project
from edgewise.errors import ConfigError

BASE: dict[str, dict[str, object]] = {"model": {"path": "m.onnx"}, "task": {"calibrate": "c.npz"}}
SCALARS = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(["5 ms", "fast", "nchw", "a.py:B"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def written(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{quoted(key)} = {written(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return quoted(value) if isinstance(value, str) else repr(value)


def quoted(text: str) -> str:
    return '"' + "".join(f"\\U{ord(each):08X}" for each in text) + '"'


@given(key=st.sampled_from(sorted(RULES)), value=VALUES)
@example(key=("budget", "size_mib"), value=10**300)
@example(key=("model", "inputs"), value={})
def test_what_a_rule_lets_through_decodes_and_the_rest_is_refused(key: tuple[str, ...], value: object) -> None:
    data: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(BASE))
    section = data
    for name in key[:-1]:
        section = section.setdefault(name, {})
    section[key[-1]] = value
    text = "\n".join(f"{name} = {written(each)}" for name, each in data.items())
    try:
        project = parse_project(text, source="edgewise.toml")
    except ConfigError as error:
        assert not RULES[key].holds(value) or "which is also" in error.found
        assert error.found.startswith("edgewise.toml:")
        assert error.required
    else:
        assert RULES[key].holds(value)
        assert isinstance(project, Project)


@given(text=st.text(alphabet=st.sampled_from(list('[]{}="\n.,# abmodeltask0123\\')), max_size=60))
def test_any_text_is_a_project_or_one_clear_refusal(text: str) -> None:
    try:
        parse_project(text, source="edgewise.toml")
    except ConfigError as error:
        assert error.found.startswith("edgewise.toml:")
        assert error.required
