"""Delta tables as other writers make them, with what delta-rs does not write: deletion vectors, mapped names, other folders.

theirs = Theirs(folder, {"id": "long", "nome": "string"}, mapped=True);  theirs.add({"id": [1, 2], "nome": ["a", "b"]})
"""

import json
import struct
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

Action = dict[str, Any]
Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


@dataclass
class Theirs:
    """A table of another writer.

    Args:
        columns: `{name: Delta type}`; a nested type as the log has it.
        mapped: data files have other names for the columns.
    """

    folder: Path
    columns: Mapping[str, Any]
    partition_by: Sequence[str] = ()
    mapped: bool = False
    features: Sequence[str] = ()
    configuration: Mapping[str, str] = field(default_factory=dict)
    id: str = "11111111-2222-3333-4444-555555555555"
    version: int = -1

    def __post_init__(self) -> None:
        self.commit(self.protocol(), self.metadata())

    def physical(self, name: str) -> str:
        return f"col-{list(self.columns).index(name)}" if self.mapped else name

    def protocol(self) -> Action:
        features = [*self.features, *(["columnMapping"] if self.mapped else [])]
        if not features:
            return {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}
        both = {"readerFeatures": features, "writerFeatures": features}
        return {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **both}}

    def metadata(self) -> Action:
        fields = []
        for number, (name, kind) in enumerate(self.columns.items(), start=1):
            mapping = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": self.physical(name)}
            fields.append({"name": name, "type": kind, "nullable": True, "metadata": mapping if self.mapped else {}})
        configuration = {**self.configuration, **({"delta.columnMapping.mode": "name"} if self.mapped else {})}
        return {
            "metaData": {
                "id": self.id,
                "format": {"provider": "parquet", "options": {}},
                "schemaString": json.dumps({"type": "struct", "fields": fields}),
                "partitionColumns": list(self.partition_by),
                "configuration": configuration,
                "createdTime": 1,
            }
        }

    def commit(self, *actions: Action) -> int:
        self.version += 1
        log = self.folder / "_delta_log"
        log.mkdir(parents=True, exist_ok=True)
        (log / f"{self.version:020}.json").write_text("".join(json.dumps(action) + "\n" for action in actions))
        return self.version

    def file(
        self,
        rows: Mapping[str, Sequence[Any]] | pa.Table,
        *,
        name: str = "",
        partition: Mapping[str, str | None] | None = None,
        deleted: Sequence[int] = (),
        footer: Mapping[bytes, bytes] | None = None,
        data_change: bool = True,
        outside: Path | None = None,
    ) -> Action:
        """Write a data file; the action that adds it, without the rows `deleted` (their positions).

        Args:
            outside: a folder that is not the table's.
        """
        table = rows if isinstance(rows, pa.Table) else pa.table(dict(rows))
        table = table.rename_columns([self.physical(column) for column in table.column_names])
        name = name or f"part-{uuid.uuid4().hex}.parquet"
        path = (outside or self.folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.replace_schema_metadata(dict(footer or {})), path)
        add = {
            "path": quote(f"file://{path}" if outside else name, safe="/:"),
            "partitionValues": {self.physical(column): value for column, value in (partition or {}).items()},
            "size": path.stat().st_size,
            "modificationTime": 1,
            "dataChange": data_change,
            "stats": json.dumps({"numRecords": len(table)}),
        }
        return {"add": {**add, **({"deletionVector": deletion_vector(deleted)} if deleted else {})}}

    def add(self, rows: Mapping[str, Sequence[Any]] | pa.Table, **how: Any) -> Action:
        """Commit one data file."""
        action = self.file(rows, **how)
        self.commit(action)
        return action


def without(
    action: Action, *, deleted: Sequence[int] = (), data_change: bool = True, folder: Path | None = None, plain: bool = False
) -> tuple[Action, ...]:
    """What removes the file of an action; with `deleted` it is there again without those rows.

    Args:
        folder: the table's, where the deletion vector is to be a file there.
        plain: as older writers do, which do not say of which partition the file was.
    """
    add = {name: value for name, value in action["add"].items() if name != "deletionVector"}
    known = ("path",) if plain else ("path", "partitionValues", "size", "deletionVector")
    remove = {name: action["add"][name] for name in known if name in action["add"]}
    gone = {"remove": {**remove, "dataChange": data_change, "deletionTimestamp": 2, "extendedFileMetadata": not plain}}
    return (gone, {"add": {**add, "deletionVector": deletion_vector(deleted, folder)}}) if deleted else (gone,)


def deletion_vector(rows: Sequence[int], folder: Path | None = None) -> dict[str, Any]:
    """A roaring bitmap of positions, as text within the log (the protocol's `i`), or in a file of the table's folder (`u`)."""
    low = sorted(rows)
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(low) - 1, 16) + struct.pack(f"<{len(low)}H", *low)
    content = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    described = {"sizeInBytes": len(content), "cardinality": len(low)}
    if folder is None:
        return {"storageType": "i", "pathOrInlineDv": _z85(content + b"\0" * (-len(content) % 4)), **described}
    name = uuid.uuid4()
    sized = struct.pack(">I", len(content)) + content + struct.pack(">I", zlib.crc32(content))
    (folder / f"deletion_vector_{name}.bin").write_bytes(b"\1" + sized)
    return {"storageType": "u", "pathOrInlineDv": _z85(name.bytes), "offset": 1, **described}


def _z85(content: bytes) -> str:
    words = struct.unpack(f">{len(content) // 4}I", content)
    return "".join(Z85[word // 85**power % 85] for word in words for power in (4, 3, 2, 1, 0))
