"""The file that messages of one partition are written to, before it lands. Pure."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

#: Bytes that make a row group.
_GROUP_BYTES = 16_000_000
#: Columns whose values repeat.
_FEW = frozenset(
    ("_airbyte_extracted_at", "_airbyte_meta", "_airbyte_generation_id", "_kafka_partition", "_kafka_key", "_kafka_epoch")
)


class MessageFile:
    """A Parquet file: the messages from offset `begin` to before `at`. `size` is in bytes before they are packed."""

    def __init__(self, path: Path, begin: int) -> None:
        self._path, self.begin, self.at = path, begin, begin
        self.count = self.size = self._open = 0
        self._batches: list[pa.RecordBatch] = []
        self._writer: Any = None

    def add(self, batch: "pa.RecordBatch", at: int) -> None:
        """Add rows, after which the file reaches to before offset `at`."""
        self._batches.append(batch)
        self.count += batch.num_rows
        self.size += batch.nbytes
        self._open += batch.nbytes
        self.at = at
        if self._open >= _GROUP_BYTES:
            self._write()

    def close(self) -> Path:
        """End the file, if it was begun."""
        if self._batches:
            self._write()
        if self._writer is not None:
            self._writer.close()
        return self._path

    def _write(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_batches(self._batches)
        if self._writer is None:
            few = [name for name in table.column_names if name in _FEW]
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd", compression_level=1, use_dictionary=few)
        self._writer.write_table(table)
        self._batches, self._open = [], 0
