"""`edgewise targets`: the classes of device that edgewise knows, and what this machine can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgewise.cli import options
from edgewise.cli.console import clean, print_document, stdout_console, stdout_kept

if TYPE_CHECKING:
    from edgewise.contracts.target import Target

EPILOG = """\
[bold]Examples[/]

edgewise targets list

edgewise targets probe --threads 2 --json
"""

targets = typer.Typer(
    help="List the classes of device that edgewise knows, or measure this machine.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@targets.command(name="list")
def list_(
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """List this machine and the target profiles by name; nothing is measured."""
    with stdout_kept():
        from edgewise.forge.targets import list_targets  # noqa: PLC0415

        found = list_targets()
    if json:
        print_document({"targets": found})
        return 0
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("name", "processor", "instruction sets", "threads", "runtimes", "power model"):
        table.add_column(head, overflow="fold")
    for each in found:
        power = "none" if each.power is None else f"{each.power.idle_w:g} W + {each.power.active_w:g} W a core"
        sets = ", ".join(each.instruction_sets)
        table.add_row(each.name, clean(each.processor), sets, str(each.threads), ", ".join(each.runtimes), power)
    stdout_console().print(table)
    return 0


@targets.command()
def probe(
    target: Annotated[
        str, typer.Option(metavar="NAME", help="A profile of this machine's class, or `local`.")
    ] = "local",
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, max=1024, help="Threads to measure with.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again instead of reading what was measured.")] = False,
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Measure this machine: speed of float and integer products, memory, and the cost of a number format's border.

    Takes about a second; what was measured is kept for the next time.
    """
    with stdout_kept():
        from edgewise.forge import targets as profiles  # noqa: PLC0415

        found = profiles.probe(profiles.load_target(target), threads=threads, fresh=fresh)
    if json:
        print_document(found)
    else:
        _print(found)
    return 0


def _print(target: Target) -> None:
    console = stdout_console()
    found = target.probe
    console.print(f"[bold]{target.name}[/]  {clean(target.processor)}, {target.threads} thread(s)", soft_wrap=True)
    if found is None:
        console.print("not measured")
        return
    rows = (
        ("fp32 products", f"{found.fp32_gmacs:.1f} GMAC/s"),
        ("int8 products", f"{found.int8_gmacs:.1f} GMAC/s ({found.int8_gmacs / found.fp32_gmacs:.2f}x fp32)"),
        ("memory", f"{found.memory_gib_per_s:.1f} GiB/s"),
        ("quantize", f"{found.quantize_call_us:.2f} us a call + {found.quantize_element_ns:.3f} ns an element"),
        ("dequantize", f"{found.dequantize_call_us:.2f} us a call + {found.dequantize_element_ns:.3f} ns an element"),
        ("signs", target.signs.value),
    )
    for label, value in rows:
        console.print(f"{label:<14} {value}")
