"""Source systems: what this project asks itself, and lands: an API, a database. One record is one landing asset.

Here: what all of them declare. Not here: each kind's own (`rest.py`, `database.py`), and how it is asked (`landing/sources/`).
"""

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from typing import ClassVar, Literal, Protocol

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import check_name, column_name
from lakehouse.tables.spec.member import check_member, check_one_of
from lakehouse.tables.spec.retry import Retry
from lakehouse.tables.spec.setting import Setting, name_of
from lakehouse.tables.spec.sources import AirbyteStream, check_folder

WhenDown = Literal["degraded", "fail"]


class Stream(Protocol):
    """A part of a source system that lands on its own: a resource of an API, a table of a database."""

    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> str: ...
    @property
    def full_refresh(self) -> bool:
        """Whether each run reads all of it, which lands as a generation."""
        ...


@dataclass(frozen=True)
class SourceSystem:
    """A system outside that is asked for what is new, and whose answers land once each.

    Args:
        name: the landing asset: `landing/<name>` asks for all of its streams.
        url: where it is; a `setting(...)`, or the text itself where it is no secret.
        retry: of the asset's step, while another try can help.
        timeout: of one try.
        overlap: how far before the newest instant that has landed it is asked again: what a slow transaction committed late.
        when_down: when it stays down: let the run go on and count as degraded, or fail it.
        sample: `module:function`, which for a landing folder opens the URL that stands in, in `dev` alone, where none is set.
        tags: jobs that run it, where its file declares more than one.
    """

    #: The technology, as the UI shows it.
    kind: ClassVar[str] = ""

    name: str
    _: KW_ONLY
    url: str | Setting = ""
    retry: Retry = field(default_factory=lambda: Retry(3, 60))
    timeout: timedelta = timedelta(minutes=5)
    overlap: timedelta = timedelta(minutes=15)
    when_down: WhenDown | Setting = "fail"
    sample: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    owners: tuple[str, ...] = ("team:dados",)

    def __post_init__(self) -> None:
        check_name(self.name, "source name")
        if isinstance(self.url, Setting) and self.url.default and self.url.secret:
            raise DeclarationError(f"Setting {self.url.name} has a default and is secret.", remedy="Let .env have its value.")
        if not isinstance(self.when_down, Setting):
            check_member(self.when_down, WhenDown, f"Source {self.name!r}: when_down")
        if self.sample and not re.fullmatch(r"[a-z_]\w*(\.[a-z_]\w*)*:[a-z_]\w*", self.sample, re.ASCII):
            raise DeclarationError(
                f"Source {self.name!r}: {self.sample[:80]!r} is no function.", remedy="Give package.module:name."
            )
        if self.timeout <= timedelta() or self.overlap < timedelta():
            raise DeclarationError(
                f"Source {self.name!r}: timeout or overlap is negative.", remedy="Give a timedelta from zero up."
            )
        if not self.streams:
            raise DeclarationError(f"Source {self.name!r} reads nothing.", remedy="Name what it reads.")
        names = [stream.name for stream in self.streams]
        folders = [self.folder(stream) for stream in self.streams]
        for each in (names, folders):
            if twice := sorted({one for one in each if each.count(one) > 1}):
                raise DeclarationError(f"Source {self.name!r} has {twice[0]!r} twice.", remedy="Give each part its own name.")
        for folder in folders:
            check_folder(folder, f"Source {self.name!r}")

    @property
    def address(self) -> str:
        """What messages call its URL: the setting's name."""
        return name_of(self.url, f"the url of source {self.name}")

    @property
    def streams(self) -> Sequence[Stream]:
        """What lands on its own."""
        raise NotImplementedError

    def folder(self, stream: Stream) -> str:
        """Where below `raw/` a stream lands."""
        return stream.folder or f"{self.name}/{stream.name}"

    def stream(self, name: str) -> AirbyteStream:
        """One of its streams as the source of a table.

        Raises:
            DeclarationError: it has no such stream.
        """
        found = {each.name: each for each in self.streams}
        check_one_of(name, found, f"Source {self.name!r}: stream")
        folder = self.folder(found[name])
        own = column_name(folder) or folder.replace("/", "_")
        return AirbyteStream(own, folder=folder, made_by=self.name, connector=self)
