"""Packing: gzip, zstd, bz2, and a zip of one file, by the end of a file's name; streaming.

Here: bytes in and out. Not here: what they hold.
"""

import bz2
import gzip
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, cast

Packing = Literal["", "gzip", "zstd", "bz2", "zip"]
_ENDINGS: dict[str, Packing] = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2", ".zip": "zip"}
#: How the content of packed files and of workbooks begins.
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh91AY&SY": "bz2",
    b"PK\x03\x04": "a zip or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
}
_CHUNK = 1 << 20
#: A piece of a zstd or bz2 file is unpacked at once: to a few megabytes at most, whatever it holds.
_PIECE = 1 << 11
#: What is unpacked may take this share of the free space of the folder.
_SHARE = 0.5


def packing(name: str) -> tuple[str, Packing]:
    """A name without the ending of a packed file, in small letters, and which packing that is."""
    name = name.lower()
    ending = PurePosixPath(name).suffix
    return (name[: -len(ending)], _ENDINGS[ending]) if ending in _ENDINGS else (name, "")


def inner_name(path: str) -> str:
    """The name of the one file in a zip.

    Raises:
        ValueError: it is no zip, or holds several files or none.
    """
    with _zip(path) as file:
        return _member(file).filename


@contextmanager
def opened(path: str, packed: Packing) -> Iterator[IO[bytes]]:
    """A file's content, unpacked. zstd is not read piece by piece like that: `unpack` it."""
    if packed == "zip":
        with _zip(path) as file, file.open(_member(file)) as content:
            yield content
    elif packed == "gzip":
        with gzip.open(path, "rb") as content:
            yield cast("IO[bytes]", content)
    else:
        with Path(path).open("rb") as content:
            yield content


def unpack(path: str, packed: Packing, target: Path) -> None:
    """Write the content of a packed file.

    Raises:
        ValueError: it is not packed like that, is cut off or damaged, or does not fit beside the lake's other work.
        OSError: gzip's own errors, and those of the disk.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    most = int(shutil.disk_usage(target.parent).free * _SHARE)
    written = 0
    with target.open("wb") as out:
        for chunk in _chunks(path, packed):
            written += len(chunk)
            if written > most:
                raise ValueError(f"It unpacks to more than {most:,} bytes, which is more than there is room for.")
            out.write(chunk)


def pack(source: Path, packed: Packing, target: Path, *, member: str = "") -> None:
    """Write a file's content packed; `member` is its name in a zip."""
    with source.open("rb") as content:
        if packed == "zip":
            with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file, file.open(member, "w") as out:
                shutil.copyfileobj(content, out, _CHUNK)
        elif packed == "zstd":
            import zstandard

            with target.open("wb") as out:
                zstandard.ZstdCompressor().copy_stream(content, out)
        else:
            openers = {"gzip": gzip.open, "bz2": bz2.open, "": open}
            with cast("Any", openers[packed])(target, "wb") as out:
                shutil.copyfileobj(content, out, _CHUNK)


def _chunks(path: str, packed: Packing) -> Iterator[bytes]:
    if packed in ("gzip", "zip", ""):
        with opened(path, packed) as content:
            try:
                while chunk := content.read(_CHUNK):
                    yield chunk
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
                raise ValueError(f"It cannot be unpacked: {error}.") from error
        return
    if packed == "bz2":
        yield from _streams(path, bz2.BZ2Decompressor, packed)
    else:
        import zstandard

        yield from _streams(path, zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj, packed)


def _streams(path: str, make: Any, packed: Packing) -> Iterator[bytes]:
    """One stream behind the other, each to its end: what is cut off is not taken for whole."""
    state, fed = make(), False
    with Path(path).open("rb") as source:
        while piece := source.read(_PIECE):
            while piece:
                if state.eof:
                    state, fed = make(), False
                try:
                    yield state.decompress(piece)
                except Exception as error:  # zstandard has an error of its own, bz2 raises OSError
                    raise ValueError(f"It cannot be unpacked as {packed}: {error}.") from error
                fed = True
                piece = state.unused_data if state.eof else b""
    if not (fed and state.eof):
        raise ValueError(f"It is cut off: the end of its {packed} content is missing.")


def _zip(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"It is no whole zip: {error}.") from error


def _member(file: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The one file that counts: what macOS and Windows put beside it does not."""
    found = [
        info
        for info in file.infolist()
        if not info.is_dir() and not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(info.filename).parts)
    ]
    if len(found) != 1:
        raise ValueError(f"It is a zip of {len(found):,} files: land each by itself.")
    if found[0].flag_bits & 1:
        raise ValueError("It is a zip with a password: land it without.")
    return found[0]
