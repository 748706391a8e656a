"""Show: what all pages have in common: how an answer is asked for, refreshed and laid out, and what stands there without one."""

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import streamlit as st

from lakehouse.core.errors import LakehouseError
from lakehouse.dashboard import markup
from lakehouse.dashboard.reading import reader
from lakehouse.reports import page

T = TypeVar("T")
#: Seconds between two looks of a page that is open.
EVERY = 30.0
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+.!|~$:-])")


def refreshed(body: Callable[[], None]) -> Callable[[], None]:
    """A part of a page that looks again by itself, and says it when the lake does not answer."""

    def guarded() -> None:
        with explained():
            body()

    guarded.__qualname__ = f"{body.__module__}.{body.__qualname__}"  # by which Streamlit tells fragments
    return st.fragment(guarded, run_every=EVERY)


@contextmanager
def explained() -> Iterator[None]:
    """Own errors become a sentence with its remedy; the page stays up."""
    try:
        yield
    except LakehouseError as error:
        st.error(f"**{plain(error.what)}**\n\n{plain(error.remedy)}", icon=":material/cloud_off:")
        st.caption("A página tenta de novo sozinha.")


def ask(query: Callable[..., T], *arguments: Hashable) -> T:
    """The answer of a query of the lake; see `reading.Reader.ask`."""
    return reader().ask(query, *arguments)


def dark() -> bool:
    """Whether the reader's theme is the dark one."""
    return st.context.theme.type == "dark"


def plain(text: Any) -> str:
    """A text from the lake such that Streamlit takes nothing in it for Markdown: an image would call out."""
    return _MARKDOWN.sub(r"\\\1", str(text))


def empty(what: str, command: str) -> None:
    """That there is nothing to show yet, and what would change it."""
    st.info(f"{what} Para criar: `{command}`.", icon=":material/hourglass_empty:")


def totals(figures: Sequence[tuple[str, str, str]]) -> None:
    """(name, value, remark) of each total."""
    st.html(markup.style(dark=dark()) + markup.totals(figures))


def table(shown: page.Table, *, nothing: str = "Nada a mostrar.", title: bool = True) -> None:
    """A table of texts, as reports have them."""
    if title:
        st.markdown(f"##### {plain(shown.title)}")
    if shown.rows:
        st.html(markup.style(dark=dark()) + markup.table(shown))
    else:
        st.caption(nothing)


def figure(shown: page.Figure | None) -> None:
    """A chart as reports have it."""
    if shown is not None:
        st.html(markup.style(dark=dark()) + markup.figure(shown, dark=dark()))


def located(chart: Any) -> Any:
    """A chart of Streamlit's with Portuguese numbers."""
    return chart.configure(locale={"number": {"decimal": ",", "thousands": ".", "grouping": [3], "currency": ["", ""]}})


def heading(title: str, remark: str = "") -> None:
    st.title(title, anchor=False)
    if remark:
        st.caption(remark)
