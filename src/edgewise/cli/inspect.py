"""`edgewise inspect`: what a model is made of, and what quantizes where."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewise.cli import options
from edgewise.cli.console import clean, print_document, stdout_console, stdout_kept
from edgewise.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from edgewise.forge.inspect import Inspection, RegionFact, TensorFact

EPILOG = """\
[bold]Examples[/]

edgewise inspect model.onnx

edgewise inspect model.onnx --input image=1,3,224,224

edgewise inspect model.onnx --json | jq .macs
"""

UNKNOWN = "unknown"
_MOST_REGIONS = 12


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="An ONNX file, or package.module:function that returns a torch module (with --input)."
        ),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=1,3,224,224",
            help="Shape of an input: makes dynamic axes static; a torch module needs one for each input.",
        ),
    ] = None,
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Show what a model is made of, and what quantizes where; nothing is run or written.

    Operators, multiply-adds (MACs), parameters, peak memory of activations, inputs and outputs, and
    by kind of region the number formats it can have. What a dynamic axis leaves open is unknown.
    """
    shapes = dict(_shape(each) for each in inputs or ())
    with stdout_kept():
        from edgewise.forge.inspect import inspect as take_apart  # noqa: PLC0415

        found = take_apart(model, base=Path.cwd(), inputs=shapes)
    if json:
        print_document(found)
    else:
        _print(found, stdout_console())
    return 0


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, axes = text.rpartition("=")
    if not name or not re.fullmatch(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*", axes):
        raise ConfigError(
            f"--input {text}",
            required="a name and a shape of whole numbers of 1 or more",
            next_step="write for example --input image=1,3,224,224",
        )
    return name, tuple(int(each) for each in axes.split(","))


def _print(found: Inspection, console: Console) -> None:
    from edgewise.contracts.units import mib  # noqa: PLC0415

    activations = found.peak_activation_bytes
    console.print(f"[bold]{_markup(found.model)}[/]  opset {found.opset}, {mib(found.size_bytes):.2f} MiB")
    console.print(f"MACs        {_count(found.macs)} per inference")
    console.print(f"parameters  {_count(found.parameters)}")
    console.print(
        f"activations {UNKNOWN if activations is None else f'{mib(activations):.2f} MiB'} at the peak (estimate)"
    )
    for word, tensors in (("input", found.inputs), ("output", found.outputs)):
        for each in tensors:
            console.print(f"{word:<11} {_markup(_tensor(each))}", soft_wrap=True)
    console.print(f"operators   {_markup(', '.join(f'{count} {op}' for op, count in found.operators.items()))}")
    console.print(_kinds(found.regions))
    console.print(_largest(found.regions))
    for note in found.notes:
        console.print(f"note: {_markup(note)}", soft_wrap=True)


def _kinds(regions: Iterable[RegionFact]) -> Table:
    """Return what can be quantized how, by kind of region."""
    groups: dict[str, list[RegionFact]] = {}
    for each in regions:
        groups.setdefault(each.kind, []).append(each)
    table = _table("kind", "regions", "MACs", "parameters", "formats")
    for kind, members in groups.items():
        formats = ", ".join(each.value for each in members[0].formats)
        total = _count(_sum(each.macs for each in members))
        table.add_row(kind, str(len(members)), total, _count(sum(each.parameters for each in members)), formats)
    return table


def _largest(regions: Iterable[RegionFact]) -> Table:
    ranked = sorted(regions, key=lambda each: -(each.macs if each.macs is not None else float("inf")))
    heavy = [each for each in ranked if each.macs != 0]
    table = _table(
        "region", "op", "MACs", "parameters", title=f"largest {min(len(heavy), _MOST_REGIONS)} of {len(heavy)}"
    )
    for each in heavy[:_MOST_REGIONS]:
        table.add_row(_markup(each.region), _markup(each.op), _count(each.macs), _count(each.parameters))
    return table


def _table(*heads: str, title: str | None = None) -> Table:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="dim")
    for head in heads:
        table.add_column(
            head, justify="right" if head in {"MACs", "parameters", "regions"} else "left", overflow="fold"
        )
    return table


def _tensor(each: TensorFact) -> str:
    shape = UNKNOWN if each.shape is None else ", ".join("?" if axis is None else str(axis) for axis in each.shape)
    return f"{each.name} {each.dtype} [{shape}]"


def _count(value: int | None) -> str:
    """Return a count as people say it.

    >>> _count(1_234_567), _count(999), _count(None)
    ('1.23 M', '999', 'unknown')
    """
    if value is None:
        return UNKNOWN
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if value >= size:
            return f"{value / (1000 if unit == 'k' else size):.2f} {unit}"
    return str(value)


def _sum(values: Iterable[int | None]) -> int | None:
    found = list(values)
    known = [each for each in found if each is not None]
    return sum(known) if len(known) == len(found) else None


def _markup(text: str) -> str:
    from rich.markup import escape  # noqa: PLC0415

    return escape(clean(text))
