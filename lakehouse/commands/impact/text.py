"""An Impact as text for a terminal, and as Markdown for a pull request."""

from collections.abc import Iterable, Iterator

from lakehouse.commands.impact.changes import Break, Change, Impact

_SIGNS = {"added": "+", "removed": "-", "changed": "~", "renamed": "~"}
_TITLES = {
    "asset": "Assets",
    "column": "Columns",
    "check": "Checks",
    "job": "Jobs",
    "schedule": "Schedules",
    "sensor": "Sensors",
}
#: So many characters of an error are shown.
_REASON = 300


def render(impact: Impact, *, base: str, head: str, markdown: bool = False) -> str:
    """The whole page; it ends with a line break."""
    return "\n".join(_Page(markdown).lines(impact, base, head)) + "\n"


class _Page:
    def __init__(self, markdown: bool) -> None:
        self.markdown = markdown

    def lines(self, impact: Impact, base: str, head: str) -> Iterator[str]:
        yield self._title(f"Impact of {head} on {base}", 2)
        yield ""
        yield summary(impact)
        if impact.errors:
            yield from self._part("Does not load", [self._item("!", error) for error in impact.errors])
        if impact.breaks:
            yield from self._part("Breaks", (line for one in impact.breaks for line in self._break(one)))
        for kind, title in _TITLES.items():
            found = [change for change in impact.changes if change.kind == kind]
            if found:
                yield from self._part(title, (line for change in found for line in self._change(change)))
        if impact.downstream:
            yield from self._part("Downstream of these changes", [self._item(" ", self._codes(impact.downstream))])
        if impact.notes:
            yield from self._part("Not compared", [self._item("!", note) for note in impact.notes])

    def _break(self, one: Break) -> Iterator[str]:
        what = "checks cannot run" if one.built else "cannot be built"
        yield self._item("!", f"{self._codes([one.name])} {what}: {self._plain(one.reason)}")
        for name, values in (("columns", one.columns), ("checks", one.checks), ("then", one.assets)):
            if values:
                yield self._item("", f"{name}: {self._codes(values)}", depth=1)

    def _change(self, change: Change) -> Iterator[str]:
        detail = self._plain(change.detail)
        shown = f" is now {detail}" if change.how == "renamed" else f": {detail}" if detail else ""
        yield self._item(_SIGNS[change.how], f"{self._codes([change.name])}{shown}")
        if change.columns:
            yield self._item("", f"in: {self._codes(change.columns)}", depth=1)

    def _part(self, title: str, lines: Iterable[str]) -> Iterator[str]:
        yield ""
        yield self._title(title, 3)
        if self.markdown:
            yield ""
        yield from lines

    def _title(self, text: str, level: int) -> str:
        return f"{'#' * level} {text}" if self.markdown else text

    def _item(self, sign: str, text: str, *, depth: int = 0) -> str:
        if self.markdown:
            mark = f"**{sign}** " if sign.strip() else ""
            return f"{'  ' * depth}- {mark}{text}"
        return f"  {'    ' * depth}{sign or ' '} {text}"

    def _codes(self, names: Iterable[str]) -> str:
        return ", ".join(f"`{name}`" if self.markdown else name for name in names)

    def _plain(self, text: str) -> str:
        """Text of others: short, and in Markdown nothing but text."""
        short = text if len(text) <= _REASON else f"{text[:_REASON]}…"
        return f"`` {short.replace('`', chr(39))} ``" if self.markdown and short else short


def summary(impact: Impact) -> str:
    """One sentence that says whether anything breaks."""
    changed = f"{len(impact.changes)} changes, {len(impact.downstream)} assets downstream of them"
    if not impact.breaking:
        return f"Nothing breaks: {changed}." if impact.changes else "Nothing changes in the graph."
    marts = sum(not one.built for one in impact.breaks)
    checks = sum(len(one.checks) for one in impact.breaks)
    parts = [f"{len(impact.errors)} parts do not load"] if impact.errors else []
    parts += [f"{marts} marts cannot be built, {checks} checks cannot run"] if impact.breaks else []
    return f"This breaks the graph: {'; '.join(parts)}. {changed[0].upper()}{changed[1:]}."
