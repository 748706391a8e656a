"""What runs print, on a laptop: Dagster's own files, without those of a step that printed nothing.

A minute's run that finds nothing new prints nothing. Its three empty files and two folders are 8 KB on disk, 1,700 times a day.
Not here: a bucket's logs (`deploy/dagster.yaml`), which Dagster's own manager writes.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg

from lakehouse.runtime.dagster_private import CapturedLogContext, ConfigurableClassData, LocalComputeLogManager

_ATTEMPTS = 5


class PrintedLogManager(LocalComputeLogManager):
    """`compute_logs: {module: lakehouse.runtime.compute_logs, class: PrintedLogManager}`."""

    @classmethod
    def config_type(cls) -> Any:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> "PrintedLogManager":
        return cls(base_dir="", inst_data=inst_data)

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Where Dagster puts them without this class."""
        super().register_instance(instance)
        self._base_dir = str(Path(instance.root_directory) / "storage")

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        with ExitStack() as captured:
            yield self._begin(captured, log_key)
        self._drop_empty(log_key)

    def is_capture_complete(self, log_key: Sequence[str]) -> bool:
        return super().is_capture_complete(log_key) or not any(file.exists() for file in self._files(log_key))

    def _begin(self, captured: ExitStack, log_key: Sequence[str]) -> CapturedLogContext:
        """Start to capture; again where another step of the run has removed the folder between its making and its use."""
        for _ in range(_ATTEMPTS - 1):
            with suppress(FileNotFoundError):
                return captured.enter_context(super().capture_logs(log_key))
        return captured.enter_context(super().capture_logs(log_key))

    def _drop_empty(self, log_key: Sequence[str]) -> None:
        files = self._files(log_key)
        if any(file.exists() and file.stat().st_size for file in files):
            return
        self.delete_logs(log_key=log_key)
        base = Path(self._base_dir).resolve()
        for folder in [parent for parent in files[0].parents if base in parent.parents]:
            with suppress(OSError):  # another step's logs are in it
                folder.rmdir()

    def _files(self, log_key: Sequence[str]) -> list[Path]:
        return [Path(self.get_captured_local_path(log_key, kind)) for kind in ("out", "err")]
