"""Files by URI, in a folder of this machine or in an object store: the few calls that both have.

A place is an absolute folder or `s3://bucket/prefix` (`gs://`, `az://`). Object stores are reached through obstore, which
takes endpoint and credentials from the store's standard environment variables, as delta-rs does.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from stat import S_ISREG
from typing import Any

from lakehouse.core.errors import StoreError
from lakehouse.core.names import is_remote
from lakehouse.core.store import durability

#: How long to try again: at the first contact a person waits for the answer; later on an hour's work hangs on it.
_FIRST, _LATER = timedelta(seconds=8), timedelta(seconds=150)
_AT_ONCE = 16
#: Where each store's endpoint and credentials come from.
_VARIABLES = {
    "s3": ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    "gs": ("GOOGLE_BASE_URL", "GOOGLE_SERVICE_ACCOUNT"),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"),
}
_URL = re.compile(r"https?://\S+")


@dataclass(frozen=True)
class Found:
    """What is known of a file without reading it: `version` changes when its content may have."""

    size: int
    version: str
    modified: float


def read(uri: str) -> bytes:
    """A file's content.

    Raises:
        FileNotFoundError: there is none.
        StoreError: the store does not answer, or refuses.
    """
    if not is_remote(uri):
        return Path(uri).read_bytes()
    store, path = _locate(uri)
    with _explained(uri):
        return bytes(store.get(path).bytes())


def put(uri: str, content: bytes | Path, *, new: bool = False) -> bool:
    """Write a whole file, atomically and durably. Returns whether it was written: False when it was to be `new` and is there.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    try:
        if not is_remote(uri):
            durability.put(uri, content, new=new)
            return True
        store, path = _locate(uri)
        with _explained(uri):
            store.put(path, content, mode="create" if new else "overwrite")
    except FileExistsError:
        return False
    return True


def put_if(uri: str, content: bytes, *, tag: str | None) -> str | None:
    """Write a file of an object store if it is still the one with this `tag`, or (None) if there is none.

    Returns its new tag, None when somebody else was first.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    from obstore.exceptions import PreconditionError

    store, path = _locate(uri)
    try:
        with _explained(uri):
            put = store.put(path, content, mode="create" if tag is None else {_tag_kind(uri): tag})
    except (FileExistsError, FileNotFoundError, PreconditionError):
        return None
    return str(put[_tag_kind(uri)])


def tag(uri: str) -> str:
    """What `put_if` tells the present content of a file of an object store by.

    Raises:
        FileNotFoundError: there is none.
        StoreError: the store does not answer, or refuses.
    """
    store, path = _locate(uri)
    with _explained(uri):
        return str(store.head(path)[_tag_kind(uri)])


def _tag_kind(uri: str) -> str:
    return "version" if uri.startswith("gs://") else "e_tag"  # Google's conditions are on generations


def remove(uris: Sequence[str]) -> None:
    """Remove files; one that is not there is none the worse."""
    for uri in uris:
        if not is_remote(uri):
            Path(uri).unlink(missing_ok=True)
            continue
        store, path = _locate(uri)
        with suppress(FileNotFoundError), _explained(uri):  # S3 does not say so, Google's store does
            store.delete(path)


def listing(folder: str, *, below: bool = False) -> dict[str, Found]:
    """The files in a folder by name; with `below` also those in its sub-folders, by their relative paths. Empty for no folder.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    if is_remote(folder):
        store, prefix = _locate(folder)
        with _explained(folder):
            pages = store.list(prefix) if below else [store.list_with_delimiter(prefix)["objects"]]
            return {item["path"][len(prefix) :].lstrip("/"): _object(item) for page in pages for item in page}
    out = {}
    for location, _, names in os.walk(folder) if below else [(folder, [], names_in(folder))]:
        for name in names:
            path = os.path.join(location, name)  # noqa: PTH118 - a Path for each of thousands costs more than the call
            with suppress(FileNotFoundError):
                found = os.stat(path)  # noqa: PTH116
                if S_ISREG(found.st_mode):
                    out[os.path.relpath(path, folder)] = _found(found)
    return out


def names_in(folder: str) -> list[str]:
    """The names of what is in a folder, files and (of this machine) folders; empty for no folder."""
    if is_remote(folder):
        return list(listing(folder))
    with suppress(FileNotFoundError, NotADirectoryError):
        return os.listdir(folder)  # noqa: PTH208 - names alone are wanted
    return []


def folders_in(folder: str) -> list[str]:
    """The names of the folders in a folder, sorted; empty for no folder.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    if is_remote(folder):
        store, prefix = _locate(folder)
        with _explained(folder):
            found = store.list_with_delimiter(prefix)["common_prefixes"]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)
    return sorted(name for name in names_in(folder) if Path(folder, name).is_dir())


@contextmanager
def at_hand(uri: str, *, by: str) -> Iterator[Path]:
    """A file on this machine for the block: itself, or a copy of what is in an object store in the folder `by`.

    Raises:
        FileNotFoundError: there is none.
        StoreError: the store does not answer, or refuses.
    """
    if not is_remote(uri):
        yield Path(uri)
        return
    copy = Path(by, hashlib.sha256(uri.encode()).hexdigest())
    try:
        _download(uri, str(copy))
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def stat(uri: str) -> Found:
    """What is known of one file.

    Raises:
        FileNotFoundError: there is none.
        StoreError: the store does not answer, or refuses.
    """
    if not is_remote(uri):
        return _found(os.stat(uri))  # noqa: PTH116
    store, path = _locate(uri)
    with _explained(uri):
        return _object(store.head(path))


@contextmanager
def opened(uri: str) -> Iterator[Any]:
    """A file to be read from any position, without a copy of it.

    Raises:
        FileNotFoundError: there is none.
        StoreError: the store does not answer, or refuses.
    """
    if not is_remote(uri):
        with Path(uri).open("rb") as content:
            yield content
        return
    import obstore

    store, path = _locate(uri)
    with _explained(uri):
        yield obstore.open_reader(store, path)


def fetch(uris: Mapping[str, str]) -> None:
    """Copy files `{uri: local path}` of an object store to this machine, several at once. What is there stays.

    Raises:
        FileNotFoundError: one is not in the store.
        StoreError: the store does not answer, or refuses.
    """
    missing = {uri: path for uri, path in uris.items() if not Path(path).exists()}
    if missing:
        with ThreadPoolExecutor(min(_AT_ONCE, len(missing))) as pool:
            list(pool.map(lambda item: _download(*item), missing.items()))


def options(uri: str) -> dict[str, str] | None:
    """What delta-rs needs to know of a store besides its environment variables: a commit is a put that must not replace, and
    a store that is out of order is asked again for as long as here. Its own pauses do not grow, so the time decides."""
    if not is_remote(uri):
        return None
    patience = {"max_retries": "1000", "retry_timeout": f"{_LATER.seconds}s"}
    return {**patience, **({"conditional_put": "etag"} if uri.startswith("s3://") else {})}


def _download(uri: str, path: str) -> None:
    part = Path(f"{path}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("wb") as out:
        out.writelines(_chunks(uri))
    part.rename(path)


def _locate(uri: str) -> tuple[Any, str]:
    """The store of a file's bucket, and its path there."""
    return _store(bucket(uri)), uri[len(bucket(uri)) + 1 :]


def _chunks(uri: str) -> Iterator[bytes]:
    """A file of an object store in pieces."""
    store, path = _locate(uri)
    with _explained(uri):
        yield from store.get(path).stream(min_chunk_size=8 << 20)


@cache
def _store(bucket: str) -> Any:
    """One client for everything in a bucket: its connections are used again."""
    reach(bucket)
    return _open(bucket, _LATER)


def bucket(uri: str) -> str:
    """The bucket of a file or folder in an object store, `s3://name`."""
    return "/".join(uri.split("/")[:3])


@cache
def reach(bucket: str) -> None:
    """See that a bucket answers; once per process when it does.

    Raises:
        StoreError: it does not answer, or refuses.
    """
    ask(bucket)


def ask(bucket: str) -> None:
    """See that a bucket answers now, within seconds.

    Raises:
        StoreError: it does not answer, or refuses.
    """
    with _explained(bucket):
        _open(bucket, _FIRST).list_with_delimiter("_lakehouse")


def _open(location: str, patience: timedelta) -> Any:
    from obstore.store import from_url

    retry: Any = {"max_retries": 50, "retry_timeout": patience, "backoff": {"max_backoff": timedelta(seconds=5)}}
    client: Any = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(minutes=10), "allow_http": True}
    return from_url(location, retry_config=retry, client_options=client)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Say what a store's errors mean, and which setting to look at. Their own text may hold a signed URL."""
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    try:
        yield
    except AlreadyExistsError as error:
        raise FileExistsError(uri) from error
    except PreconditionError:
        raise
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise explain(uri, error) from None
        raise FileNotFoundError(uri) from None  # its own text is a page
    except BaseError as error:
        raise explain(uri, error) from None


def explain(uri: str, error: Exception) -> StoreError:
    """A store's error as one sentence with its remedy."""
    scheme = uri.partition("://")[0]
    endpoint, credentials = _VARIABLES.get(scheme, ("the endpoint", "the credentials"))
    where = bucket(uri)
    text = _URL.sub("", str(error))  # a bucket may be called credentials, and a port be 35031
    if "169.254.169.254" in str(error) or any(word in text for word in ("metadata endpoint", "credentials")):
        return StoreError(f"There are no credentials for {where}.", remedy=f"Set {credentials}.")
    if any(word in text for word in ("NoSuchBucket", "BucketNotFound")):
        return StoreError(f"There is no bucket {where}.", remedy="Create it, or set LAKEHOUSE_ROOT (LAKEHOUSE_<LAYER>_ROOT).")
    if any(word in text for word in ("403 Forbidden", "401 Unauthorized", "InvalidAccessKeyId", "UserNotFound", "AccessDenied")):
        return StoreError(f"The store refuses access to {where}.", remedy=f"Check {credentials}.")
    if any(word in text for word in ("503 Service", "SlowDown", "500 Internal", "429 Too Many")):
        return StoreError(f"The store of {where} is overloaded or out of order.", remedy="Run it again when it answers.")
    return StoreError(f"The store of {where} does not answer.", remedy=f"Check that it runs, and {endpoint}.")


def _object(item: Mapping[str, Any]) -> Found:
    return Found(item["size"], item["e_tag"] or str(item["size"]), item["last_modified"].timestamp())


def _found(stat: os.stat_result) -> Found:
    return Found(stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}", stat.st_mtime)


def digest(uri: str) -> str:
    """The SHA-256 of a file's content, read in pieces.

    Raises:
        FileNotFoundError: there is none.
        StoreError: the store does not answer, or refuses.
    """
    if not is_remote(uri):
        with Path(uri).open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    found = hashlib.sha256()
    for chunk in _chunks(uri):
        found.update(chunk)
    return found.hexdigest()
