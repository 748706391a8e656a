"""The settings that sources declare, as `.env.example` and docs/settings.md list them (`make sync`)."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from lakehouse.settings import project_folder
from lakehouse.tables.spec import Setting
from lakehouse.tables.spec.setting import Value

#: The lines that a file has of them; what is between is written anew.
EXAMPLE = ("# -- of the sources in lakehouse/tables/, by make sync", "# -- end of the sources")
PAGE = ("<!-- of the sources in lakehouse/tables/, by make sync -->", "<!-- end of the sources -->")
_WIDTH = 40


def files() -> tuple[Path, Path]:
    """The two files, whether they are in this installation or not."""
    return project_folder() / ".env.example", project_folder() / "docs" / "settings.md"


def listed(settings: Iterable[Setting]) -> dict[Path, str]:
    """Both files with these settings; what is not in this installation is left out."""
    found = list(settings)
    forms = ((EXAMPLE, map(_line, found)), (PAGE, [*_HEAD, *map(_row, found)]))
    return {
        path: between(path.read_text(encoding="utf-8"), marks, lines)
        for path, (marks, lines) in zip(files(), forms, strict=True)
        if path.is_file()
    }


def between(text: str, marks: tuple[str, str], lines: Iterable[str]) -> str:
    """A text with other lines between its marks; at its end where it has none."""
    begin, end = marks
    before, begun, rest = text.partition(begin)
    after = rest.partition(end)[2] if begun else "\n"
    head = before if begun else before.rstrip("\n") + "\n\n"
    return "\n".join([head + begin, *lines, end]) + after


_HEAD = ("", "## Of the sources", "", "| variable | default | meaning |", "|---|---|---|")


def _row(one: Setting) -> str:
    standard = _standard(one)
    return f"| `{one.name}` |{f' {standard}' if standard else ''} | {one.description}{'; secret' if one.secret else ''} |"


def _line(one: Setting) -> str:
    simple = not one.unset and not isinstance(one.default, Mapping)
    standard = _standard(one).replace("`", "")
    shown = f"{one.name}={standard if simple else ''}"
    return f"# {shown:{_WIDTH}} {one.description}{f' (default: {standard})' if standard and not simple else ''}"


def _standard(one: Setting) -> str:
    if one.unset:
        return one.unset
    if isinstance(one.default, Mapping):
        return ", ".join(f"{_shown(value)} in {environment}" for environment, value in one.default.items())
    return _shown(one.default)


def _shown(value: Value) -> str:
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`" if value != "" else ""
