"""Avro files as JSON lines: Airbyte's destination writes records flat, so what comes out is read like its flattened JSONL.

Record by record, so memory is bounded by the file's blocks. Instants and days become ISO texts, decimals and bytes texts.
"""

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from lakehouse.core.errors import DeclarationError, install


def to_json_lines(path: str, target: Path) -> None:
    """Write the records of an Avro file as JSON lines.

    Raises:
        ValueError: it is no Avro file, is cut off, or is packed in a way that cannot be read here; the message says which.
        DeclarationError: the package that reads Avro is not installed.
    """
    try:
        import fastavro
    except ModuleNotFoundError:
        raise DeclarationError(
            f"{Path(path).name} is Avro, and fastavro, which reads it, is not installed.",
            remedy=f"{install('ingest')}.",
        ) from None
    target.parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("rb") as source, target.open("w", encoding="utf-8") as out:
        try:
            for record in fastavro.reader(source):
                out.write(json.dumps(record, default=_text, ensure_ascii=False) + "\n")
        except OSError:
            raise
        except Exception as error:  # whatever a damaged block makes of fastavro: KeyError, IndexError, zlib.error, ...
            raise ValueError(f"It cannot be read as Avro: {str(error) or type(error).__name__}") from error


def _text(value: Any) -> str:
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)
