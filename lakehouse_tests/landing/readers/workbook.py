"""A workbook of Excel as bytes, cell by cell as its XML has them: what no library would write can be written too."""

import io
import zipfile
from collections.abc import Mapping

_OFFICE = "http://schemas.openxmlformats.org"
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
#: Formats of cells: a number, a day, an instant, a time, a duration.
_STYLES = (0, 14, 22, 21, 46)


def text(address: str, value: str) -> str:
    return f'<c r="{address}" t="inlineStr"><is><t xml:space="preserve">{value}</t></is></c>'


def cell(address: str, value: str, *, kind: str = "n", style: int = 0) -> str:
    """A cell; `kind` is `n`, `b`, `e` or `str`, and `style` counts in `_STYLES`."""
    return f'<c r="{address}" s="{style}" t="{kind}"><v>{value}</v></c>'


def rows(*cells: list[str], first: int = 1) -> str:
    """The rows of a sheet; an empty list is a row without cells."""
    return "".join(f'<row r="{number}">{"".join(row)}</row>' for number, row in enumerate(cells, start=first))


def workbook(sheets: Mapping[str, str], *, hidden: tuple[str, ...] = ()) -> bytes:
    """A workbook of sheets, which are `rows`."""
    names = list(enumerate(sheets, start=1))
    kind = f"{_OFFICE}/officeDocument/2006/relationships"
    links = [f'<Relationship Id="r{n}" Type="{kind}/worksheet" Target="worksheets/s{n}.xml"/>' for n, _ in names]
    links.append(f'<Relationship Id="st" Type="{kind}/styles" Target="styles.xml"/>')
    state = {name: ' state="hidden"' for name in hidden}
    listed = [f'<sheet name="{name}" sheetId="{n}" r:id="r{n}"{state.get(name, "")}/>' for n, name in names]
    styles = "".join(f'<xf numFmtId="{number}"/>' for number in _STYLES)
    main, relations = f"{_OFFICE}/spreadsheetml/2006/main", f"{_OFFICE}/package/2006/relationships"
    parts = {
        "_rels/.rels": f'<Relationships xmlns="{relations}"><Relationship Id="r" Target="xl/workbook.xml" '
        f'Type="{kind}/officeDocument"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{kind}"><sheets>{"".join(listed)}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{relations}">{"".join(links)}</Relationships>',
        "xl/styles.xml": f'<styleSheet xmlns="{main}"><cellXfs>{styles}</cellXfs></styleSheet>',
    }
    parts |= {
        f"xl/worksheets/s{n}.xml": f'<worksheet xmlns="{main}"><sheetData>{sheets[name]}</sheetData></worksheet>'
        for n, name in names
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, _HEAD + content)
    return out.getvalue()
