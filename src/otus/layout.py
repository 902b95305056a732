"""What the HTML pages share: their tables as text, and how a page is made of its own template and layout.html."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2


@dataclass(frozen=True)
class Table:
    """A table of a page: the first `text_columns` are text, the others numbers; `strong` rows stand out.

    `path_column` holds file names, which may be broken anywhere, the text columns from `prose_from` on hold sentences;
    `bars` are shares of the largest, drawn in the last column. `left_out` counts rows that are not shown, `rest` says
    where they are.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int
    strong: frozenset[int] = frozenset()
    path_column: int | None = None
    prose_from: int | None = None
    bars: Sequence[float] = ()
    left_out: int = 0
    title: str = ""
    rest: str = ""


def render_page(package: str, shown: dict[str, Any]) -> str:
    """Return the page of a package as HTML, from what it shows by name: one file without scripts.

    Its page.html extends layout.html and may include other templates of the package. Text is escaped, unless it is
    Markup; a name that `shown` lacks is an error.
    """
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: _template(package, name)),
    )
    return environment.get_template("page.html").render(shown)


def _template(package: str, name: str) -> str:
    home = __package__ if name == "layout.html" else package
    return resources.files(home).joinpath(name).read_text("utf-8")
