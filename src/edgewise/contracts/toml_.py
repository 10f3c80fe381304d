"""Reads `edgewise.toml` into a `Project`, and refuses every wrong key, unit and value.

A message names the file and the line, the section, what was found, what was expected, and the
nearest thing that would be right:

    edgewise.toml:12 [budget] unknown key "latency_p99"
    required: one of latency_p50_ms, latency_p99_ms, peak_memory_mib, ...
    next: did you mean "latency_p99_ms"?

Checked in three steps: the text is TOML; each key is known and holds what `contracts.rules` says
of it; keys agree with one another. Nothing is read from disk here: whether a path exists is for
those who open it.
"""

from __future__ import annotations

import difflib
import posixpath
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import msgspec

from edgewise.contracts.project import Project
from edgewise.contracts.rules import RULES, Path, converted
from edgewise.errors import ConfigError

MOST_LINES = 1000
"""Line numbers are looked for in texts of at most so many lines."""
MOST_CHARACTERS = 60
"""A value is shown in a message with at most so many characters."""

Table = Mapping[str, Any]


def parse_project(text: str, *, source: str) -> Project:
    r"""Return the project that an edgewise.toml describes; `source` is its name, for messages.

    >>> text = '[model]\npath = "m.onnx"\n[task]\ncalibrate = "c.npz"\n[budget]\nsize_mib = 4'
    >>> parse_project(text, source="edgewise.toml").budget.size_mib
    4.0
    """
    text = text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    data = _decode(text, source)
    _Check(text, source).table(data, Project, ())
    _check_together(data, _Check(text, source))
    try:
        return msgspec.convert(data, Project)
    except msgspec.ValidationError as error:
        # Only reached where a rule lets through what the type does not.
        raise ConfigError(
            f"{source}: {error}", required="a configuration as in docs/reference/edgewise-toml"
        ) from error


def sections(kind: type[msgspec.Struct] = Project, path: Path = ()) -> dict[Path, type[msgspec.Struct]]:
    """Return every section of edgewise.toml by its path, and what it decodes to; the root is `()`."""
    found = {path: kind}
    for field in msgspec.structs.fields(kind):
        if _is_section(field):
            found |= sections(field.type, (*path, field.name))
    return found


def _is_section(field: msgspec.structs.FieldInfo) -> bool:
    return isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)


def _decode(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{source}: it is nested too deeply to be read", required="a TOML file") from None
    except ValueError as error:
        message = str(error)
        place = re.search(r" \(at line (\d+), column \d+\)$", message)
        line = int(place[1]) if place else len(text.splitlines()) or 1
        words = message[: place.start()] if place else message.removesuffix(" (at end of document)").split(";")[0]
        shown = _cut(text.splitlines()[line - 1].strip()) if text.strip() else ""
        raise ConfigError(
            f"{source}:{line} is not TOML: {words[:1].lower()}{words[1:]}, in `{shown}`",
            required='lines like `key = 1.5`, `key = "text"`, `key = [1, 2]`, under a `[section]`',
            next_step="correct that line",
        ) from error


class _Check:
    """Raises ConfigError for the first thing wrong, with the line it stands on."""

    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source

    def refuse(self, path: Path, found: str, *, required: str, next_step: str, section: Path | None = None) -> NoReturn:
        """Raise for the key or section at `path`."""
        line = _line_of(self._text, path)
        place = f"{self._source}:" if line is None else f"{self._source}:{line}"
        name = f"[{'.'.join(path[:-1] if section is None else section)}] "
        raise ConfigError(f"{place} {'' if name == '[] ' else name}{found}", required=required, next_step=next_step)

    def table(self, data: Table, kind: type[msgspec.Struct], path: Path) -> None:
        """Check a section: its keys are known, those it must have are there, its values hold."""
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        for key, value in data.items():
            here = (*path, key)
            if key not in fields:
                self._unknown(here, value, fields)
            if _is_section(fields[key]):
                if not isinstance(value, dict):
                    self._not_a_section(here, value)
                self.table(value, fields[key].type, here)
            elif not RULES[here].holds(value):
                self._wrong(here, value, required=fields[key].required)
        for name, field in fields.items():
            if field.required and name not in data:
                self._missing(path, field)

    def _unknown(self, path: Path, value: object, fields: Mapping[str, msgspec.structs.FieldInfo]) -> NoReturn:
        key, section = path[-1], path[:-1]
        is_table = isinstance(value, dict)
        found = f"unknown section [{'.'.join(path)}]" if is_table else f'unknown key "{key}"'
        allowed = [each for each in fields if section or is_table is _is_section(fields[each])]
        required = f"one of {', '.join(allowed or fields)}"
        if not section:
            required = "the sections " + ", ".join(f"[{each}]" for each in fields)
        near = difflib.get_close_matches(key, allowed, n=1)
        elsewhere = [each for each in (*RULES, *sections()) if each and each[-1] == key]
        if near:
            next_step = f"did you mean [{'.'.join((*section, near[0]))}]?" if is_table else f'did you mean "{near[0]}"?'
        elif elsewhere:
            next_step = f'"{key}" belongs to [{".".join(elsewhere[0][:-1])}]'
        elif far := difflib.get_close_matches(key, [each[-1] for each in RULES], n=1):
            home = next(each for each in RULES if each[-1] == far[0])
            next_step = f'did you mean "{far[0]}" of [{".".join(home[:-1])}]?'
        else:
            next_step = "remove it, or see docs/reference/edgewise-toml"
        self.refuse(path, found, required=required, next_step=next_step, section=() if is_table else section)

    def _not_a_section(self, path: Path, value: object) -> NoReturn:
        name = ".".join(path)
        is_repeated = isinstance(value, list) and any(isinstance(each, dict) for each in value)
        self.refuse(
            path,
            f"[[{name}]] is a list of sections" if is_repeated else f"{path[-1]} = {_shown(value)}",
            required=f"one section [{name}] with keys of its own",
            next_step=f"write [{name}] on a line of its own, its keys below",
        )

    def _wrong(self, path: Path, value: object, *, required: bool) -> NoReturn:
        rule = RULES[path]
        if isinstance(value, dict) and (bad := [each for each in value if not rule.holds({each: value[each]})]):
            found = f"{bad[0]} = {_shown(value[bad[0]])}"
            self.refuse((*path, bad[0]), found, required=rule.words, next_step=f"correct {path[-1]}.{bad[0]}")
        next_step = "write such a value" if required else f"write such a value, or leave {path[-1]} out"
        options = list(rule.choices)
        words = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]
        near = [
            match
            for word in words
            if word not in options
            for match in difflib.get_close_matches(word.lower(), options, n=1)
        ]
        number = converted(rule, value)
        if near:
            next_step = f'did you mean "{near[0]}"?'
        elif number is not None:
            next_step = f"write {path[-1]} = {number:g}"
        elif isinstance(value, str) and value in options:
            next_step = f'write {path[-1]} = ["{value}"]'
        self.refuse(path, f"{path[-1]} = {_shown(value)}", required=rule.words, next_step=next_step)

    def _missing(self, section: Path, field: msgspec.structs.FieldInfo) -> NoReturn:
        path = (*section, field.name)
        if _is_section(field):
            needed = ", ".join(each.name for each in msgspec.structs.fields(field.type) if each.required)
            self.refuse(
                section,
                f"the section [{'.'.join(path)}] is missing",
                required=f"[{'.'.join(path)}] with {needed}",
                next_step=f"add [{'.'.join(path)}]",
                section=(),
            )
        self.refuse(
            section,
            f'the key "{field.name}" is missing',
            required=f"{field.name} = {RULES[path].words}",
            next_step=f"add {field.name} below [{'.'.join(section)}]",
            section=section,
        )


def _check_together(data: Table, check: _Check) -> None:
    """Refuse keys that are right alone and wrong together."""
    task = data["task"]
    seen: dict[str, str] = {}
    # A task of the user's own gives its samples itself: its splits are names, not paths.
    for split in () if ".py:" in task.get("kind", "") else ("calibrate", "select", "test"):
        if split not in task:
            continue
        where = posixpath.normpath(task[split])
        if where in seen:
            check.refuse(
                ("task", split),
                f"{split} = {_shown(task[split])}, which is also {seen[where]}",
                required="splits that share no sample: what was searched with cannot prove what was found",
                next_step=f"name other data for {split}, or leave the key out",
            )
        seen[where] = split
    image = task.get("image", {})
    mean, std = image.get("mean", [0.0]), image.get("std", [1.0])
    if len(mean) != len(std) and 1 not in {len(mean), len(std)}:
        check.refuse(
            ("task", "image", "std"),
            f"std has {len(std)} numbers and mean has {len(mean)}",
            required="as many of one as of the other, or one number for all channels",
            next_step="give each channel a mean and a std",
        )
    resize, crop = image.get("resize"), image.get("crop")
    if resize is not None and crop is not None and crop > resize:
        check.refuse(
            ("task", "image", "crop"),
            f"crop = {crop} is larger than resize = {resize}",
            required="a crop that fits into the resized image",
            next_step=f"write crop = {resize} or less",
        )


def _shown(value: object) -> str:
    """Return a value as TOML would write it, cut to a readable length."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _cut(f'"{value}"')
    if isinstance(value, list):
        return _cut(f"[{', '.join(_shown(each) for each in value)}]")
    return "{...}" if isinstance(value, dict) else _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "..."


def _line_of(text: str, path: Path) -> int | None:
    """Return the line on which `path` first stands, or None where it cannot be told.

    The text is parsed up to each of its lines in turn. Where a prefix first holds the path, the
    statement that defines it began after the last prefix that could be parsed: exact also for
    dotted keys, inline tables and values of several lines, which a search of the text is not.
    """
    lines = text.splitlines()
    if not path or len(lines) > MOST_LINES:
        return None
    for start, data in _prefixes(lines):
        if _has(data, path):
            return start
    return None


def _prefixes(lines: list[str]) -> Iterator[tuple[int, Table]]:
    """Yield the line each statement begins on, with everything the text says up to its end."""
    start = 1
    for end in range(1, len(lines) + 1):
        try:
            data = tomllib.loads("\n".join(lines[:end]))
        except ValueError:
            continue
        yield start, data
        start = end + 1


def _has(data: Any, path: Path) -> bool:
    for key in path:
        if not isinstance(data, dict) or key not in data:
            return False
        data = data[key]
    return True
