"""Writing HTML and SVG. Every text is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import TypeAlias

_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_HTML_VOID = frozenset({"input", "link", "meta"})
_SVG_EMPTY = frozenset({"circle", "line", "path", "polygon", "rect"})


class Markup(str):
    """Text that is HTML already. `element` makes it."""

    __slots__ = ()


Child: TypeAlias = "str | int | Sequence[Child] | None"
"""The content of an element: text (escaped), `Markup` (not escaped), sequences of these, or None for nothing."""


def escape(text: object) -> Markup:
    """`text` with markup characters escaped. Characters that HTML cannot hold become U+FFFD."""
    return Markup(html.escape(_FORBIDDEN.sub("\ufffd", str(text))))


def join(*children: Child) -> Markup:
    """The children, one after another.

    >>> join("a < b", element("b"), None, ["c"])
    'a &lt; b<b></b>c'
    """
    return Markup("".join(_child(child) for child in children))


def element(name: str, /, *children: Child, **attributes: object) -> Markup:
    """One element.

    In the name of an attribute write `_` instead of `-`. Add `_` to a name that Python reserves, such as `class_`. An
    attribute that is None or False is left out. True gives an attribute without a value. Floats get at most two digits
    after the point.

    >>> element("td", "a & b", class_="name", data_v=0.5, hidden=True, colspan=None)
    '<td class="name" data-v="0.5" hidden>a &amp; b</td>'
    """
    written = "".join(_attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    if name in _HTML_VOID:
        return Markup(f"<{name}{written}>")
    if name in _SVG_EMPTY and not children:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, str | int):
        return child if isinstance(child, Markup) else escape(child)
    return "".join(_child(one) for one in child)


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    return f' {name}="{escape(f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value)}"'
