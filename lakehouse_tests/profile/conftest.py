"""Files that are profiled as `make table` does, without its command."""

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lakehouse.commands.table import profiled
from lakehouse.profile.origin import origin_of
from lakehouse.profile.propose import Proposal
from lakehouse.settings import Settings

Profile = Callable[..., Proposal]


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    """The proposal for a file with some content, or for what is named."""
    count = iter(range(100))

    def of(name: str, content: bytes | str | None = None, **named: Any) -> Proposal:
        settings = Settings(root=str(tmp_path / "lake"), landing_dir=str(tmp_path / "landing"))
        text = name
        if content is not None:
            path = tmp_path / f"given-{next(count)}" / name
            path.parent.mkdir()
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            text = str(path)
        found = origin_of(text, settings.storage)
        scratch = tmp_path / f"scratch-{next(count)}"
        scratch.mkdir()
        return profiled(found, named.pop("table", found.name), settings, scratch, **named)[0]

    return of


def workbook(sheets: dict[str, Sequence[Sequence[Any]]]) -> bytes:
    """An Excel workbook with texts and numbers, as small as one can be."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"

    def cell(value: Any) -> str:
        if isinstance(value, int | float):
            return f"<c><v>{value}</v></c>"
        return f'<c t="inlineStr"><is><t>{value}</t></is></c>' if value else "<c/>"

    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types"><Default Extension="rels" ContentType="application/vnd.'
        'openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" Type="{office}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        + "".join(f'<sheet name="{name}" sheetId="{n}" r:id="r{n}"/>' for n, name in enumerate(sheets, start=1))
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        + "".join(
            f'<Relationship Id="r{n}" Type="{office}/worksheet" Target="worksheets/sheet{n}.xml"/>'
            for n in range(1, len(sheets) + 1)
        )
        + "</Relationships>",
    }
    for n, rows in enumerate(sheets.values(), start=1):
        lines = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
        parts[f"xl/worksheets/sheet{n}.xml"] = f'<worksheet xmlns="{main}"><sheetData>{lines}</sheetData></worksheet>'
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name, text in parts.items():
            packed.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{text}')
    return out.getvalue()
