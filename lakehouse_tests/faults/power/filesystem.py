"""A filesystem in memory that notes what is done to it, in order.

    python -m lakehouse_tests.faults.power.filesystem <mount point> <journal>    until it is unmounted

Making a folder whose name begins with `.mark-` only notes the rest of the name: so whoever works there reports. What is done
below `/spill` is not noted: it means nothing after a power cut.
"""

import errno
import os
import pickle
import stat
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import mfusepy

from lakehouse_tests.faults.power.states import MARK

_SPILL = "/spill"


@dataclass
class _Node:
    """A file, or a folder with its entries."""

    number: int
    mode: int
    content: bytearray = field(default_factory=bytearray)
    entries: "dict[str, _Node]" = field(default_factory=dict)
    links: int = 1
    modified: float = field(default_factory=time.time)


class Filesystem(mfusepy.Operations):  # type: ignore[misc]  # it has no types
    """See the module. Paths are those of the mount, `/` is its root."""

    use_ns = True

    def __init__(self, journal: BinaryIO) -> None:
        self.journal = journal
        self.root = _Node(0, stat.S_IFDIR | 0o755)
        self.numbers = 0
        self.open_files: dict[int, _Node] = {}

    def _note(self, *operation: Any) -> None:
        if str(operation[1]).startswith((_SPILL, "-")):
            return
        pickle.dump(operation, self.journal)
        self.journal.flush()

    def _find(self, path: str) -> _Node:
        node = self.root
        for part in Path(path).parts[1:]:
            if part not in node.entries:
                raise mfusepy.FuseOSError(errno.ENOENT)
            node = node.entries[part]
        return node

    def _parent(self, path: str) -> tuple[_Node, str]:
        return self._find(os.path.dirname(path)), os.path.basename(path)  # noqa: PTH119, PTH120

    def _new(self, path: str, mode: int) -> _Node:
        parent, name = self._parent(path)
        self.numbers += 1
        number = -self.numbers if path.startswith(_SPILL) else self.numbers
        parent.entries[name] = node = _Node(number, mode)
        return node

    # --- files -------------------------------------------------------------------------------------------------------

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        node = self._new(path, stat.S_IFREG | mode)
        self._note("create", path, node.number)
        return self._opened(node)

    def open(self, path: str, flags: int) -> int:
        node = self._find(path)
        if flags & os.O_TRUNC:
            self._cut(node, 0)
        return self._opened(node)

    def _opened(self, node: _Node) -> int:
        handle = max(self.open_files, default=0) + 1
        self.open_files[handle] = node
        return handle

    def read(self, path: str, size: int, offset: int, handle: int) -> bytes:
        return bytes(self.open_files[handle].content[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, handle: int) -> int:
        node = self.open_files[handle]
        node.content.extend(b"\0" * (offset - len(node.content)))
        node.content[offset : offset + len(data)] = data
        node.modified = time.time()
        self._note("write", node.number, offset, bytes(data))
        return len(data)

    def truncate(self, path: str, length: int, handle: int | None = None) -> None:
        self._cut(self._find(path) if handle is None else self.open_files[handle], length)

    def _cut(self, node: _Node, length: int) -> None:
        node.content = node.content[:length] + b"\0" * (length - len(node.content))
        self._note("truncate", node.number, length)

    def fsync(self, path: str, datasync: int, handle: int) -> int:
        self._note("sync", self.open_files[handle].number)
        return 0

    def flush(self, path: str, handle: int) -> int:
        return 0

    def release(self, path: str, handle: int) -> int:
        del self.open_files[handle]
        return 0

    # --- folders -----------------------------------------------------------------------------------------------------

    def mkdir(self, path: str, mode: int) -> int:
        name = os.path.basename(path)  # noqa: PTH119
        if name.startswith(MARK):
            self._note("mark", name.removeprefix(MARK))
            raise mfusepy.FuseOSError(errno.EEXIST)
        self._note("mkdir", path, self._new(path, stat.S_IFDIR | mode).number)
        return 0

    def fsyncdir(self, path: str, datasync: int, handle: int) -> int:
        self._note("sync folder", self._find(path).number)
        return 0

    def rename(self, old: str, new: str, *flags: Any) -> int:
        (source, was), (target, name) = self._parent(old), self._parent(new)
        if was not in source.entries:
            raise mfusepy.FuseOSError(errno.ENOENT)
        target.entries[name] = source.entries.pop(was)
        self._note("rename", old, new)
        return 0

    def link(self, target: str, source: str) -> int:
        parent, name = self._parent(target)
        if name in parent.entries:
            raise mfusepy.FuseOSError(errno.EEXIST)
        node = self._find(source)
        node.links += 1
        parent.entries[name] = node
        self._note("link", source, target)
        return 0

    def unlink(self, path: str) -> int:
        parent, name = self._parent(path)
        self._find(path)
        del parent.entries[name]
        self._note("unlink", path)
        return 0

    def rmdir(self, path: str) -> int:
        if self._find(path).entries:
            raise mfusepy.FuseOSError(errno.ENOTEMPTY)
        parent, name = self._parent(path)
        del parent.entries[name]
        self._note("unlink", path)
        return 0

    # --- what is known -----------------------------------------------------------------------------------------------

    def getattr(self, path: str, handle: int | None = None) -> dict[str, Any]:
        node = self.open_files[handle] if handle in self.open_files else self._find(path)
        times = dict.fromkeys(("st_atime", "st_mtime", "st_ctime"), int(node.modified * 1e9))
        return {"st_mode": node.mode, "st_nlink": node.links, "st_size": len(node.content), "st_ino": abs(node.number), **times}

    def readdir(self, path: str, handle: int) -> list[str]:
        return [".", "..", *self._find(path).entries]

    def chmod(self, path: str, mode: int) -> int:
        node = self._find(path)
        node.mode = stat.S_IFMT(node.mode) | mode
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        return 0

    def utimens(self, path: str, times: Any = None) -> int:
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        return {"f_bsize": 4096, "f_frsize": 4096, "f_blocks": 1 << 30, "f_bfree": 1 << 29, "f_bavail": 1 << 29, "f_namemax": 255}


if __name__ == "__main__":
    with Path(sys.argv[2]).open("wb") as journal:
        mfusepy.FUSE(Filesystem(journal), sys.argv[1], foreground=True, nothreads=True, fsname="power")
