"""The errors this project raises: what happened, what to do, and whether trying again can help."""

from typing import ClassVar


class LakehouseError(Exception):
    """Base of all own errors.

    Args:
        what: one sentence that says what happened and where.
        remedy: what the reader should do; it ends the message.
    """

    retryable: ClassVar[bool] = False

    def __init__(self, what: str, *, remedy: str) -> None:
        super().__init__(f"{what} {remedy}")
        self.what = what
        self.remedy = remedy


class DeclarationError(LakehouseError):
    """A table, rule, name or setting was declared wrongly; nothing was run."""


class ExpressionError(DeclarationError):
    """An expression of a spec is not in the allowed subset of SQL."""


class ConflictError(LakehouseError):
    """Another writer committed first. Nothing of ours became visible; reading again and redoing the work helps."""

    retryable = True


class BusyError(LakehouseError):
    """Another process holds the table and did not finish within the waiting time, which was long enough."""


class RefusedWriteError(LakehouseError):
    """A write would destroy more than its declaration allows. Nothing was committed."""


class BrokenTableError(LakehouseError):
    """A Delta table and what it should hold do not agree (schema, watermark, missing file)."""


class ForeignTableError(LakehouseError):
    """A Delta table of another writer has something that is not read here exactly. Nothing of it was read.

    Args:
        feature: what it is, in the words of the Delta protocol where it has one.
    """

    def __init__(self, what: str, *, remedy: str, feature: str) -> None:
        super().__init__(what, remedy=remedy)
        self.feature = feature


class UnreadableFileError(LakehouseError):
    """A landed file cannot be read in the form that its name says."""


class StoreError(LakehouseError):
    """An object store does not answer, or refuses. What had been committed before stays."""


class SourceError(LakehouseError):
    """A source or a target outside the lake did not do what it was asked. Nothing was taken over."""


class SourceDownError(SourceError):
    """It does not answer, or not wholly. Trying later may help.

    Args:
        after: seconds that it asked to be left alone for, when it said so.
    """

    retryable = True

    def __init__(self, what: str, *, remedy: str, after: float | None = None) -> None:
        super().__init__(what, remedy=remedy)
        self.after = after


class SourceRefusedError(SourceError):
    """It refuses what is asked of it, and will again: credentials, a table, a form.

    Args:
        status: of an HTTP answer; 0 where there was none.
        reported: the text of that answer.
    """

    def __init__(self, what: str, *, remedy: str, status: int = 0, reported: str = "") -> None:
        super().__init__(what, remedy=remedy)
        self.status = status
        self.reported = reported


def install(extra: str) -> str:
    """The beginning of a remedy: how an extra of `pyproject.toml` is installed."""
    return f"Run .venv/bin/uv pip install --constraint requirements.lock -e '.[{extra}]'"
