"""HTML and SVG that cannot be broken out of: every string is escaped, unless it was made here."""

from __future__ import annotations

import html
from collections.abc import Iterable

_VOID = frozenset({"br", "hr", "img", "meta"})


class Html(str):
    """Text that is markup already. Only `tag` and `join` make it from parts that are safe."""

    __slots__ = ()


Child = str | float | int | None
"""What stands inside an element: text, which is escaped, or markup; None is nothing."""


def escape(value: Child) -> Html:
    r"""Return a value as markup; control characters, which no XML may hold, become visible.

    >>> escape("<script>\x00")
    '&lt;script&gt;\\x00'
    """
    if value is None:
        return Html("")
    if isinstance(value, Html):
        return value
    text = "".join(each if each.isprintable() or each in "\n\t" else f"\\x{ord(each):02x}" for each in str(value))
    return Html(html.escape(text))


def join(children: Iterable[Child]) -> Html:
    """Return the children one after the other."""
    return Html("".join(escape(each) for each in children))


def tag(name: str, /, *children: Child, **attributes: Child) -> Html:
    """Return an element. An attribute's trailing underscore is dropped, others become hyphens; None leaves it out.

    >>> tag("td", "a & b", class_="name", data_index=3)
    '<td class="name" data-index="3">a &amp; b</td>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_plain(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def table(head: Iterable[Child], rows: Iterable[Iterable[Child]], *, class_: str | None = None) -> Html:
    """Return a table in a frame that scrolls where the page is too narrow; each row's first cell is its head."""
    body = []
    for first, *cells in rows:
        body.append(tag("tr", tag("th", first, scope="row"), *(tag("td", each) for each in cells)))
    return tag(
        "div",
        tag(
            "table",
            tag("thead", tag("tr", *(tag("th", each, scope="col") for each in head))),
            tag("tbody", *body),
            class_=class_,
        ),
        class_="scroll",
    )


def _plain(value: Child) -> str:
    """Return an attribute's value; numbers are rounded, for coordinates fill most of a report."""
    return f"{value:g}" if isinstance(value, float) else str(escape(value))
