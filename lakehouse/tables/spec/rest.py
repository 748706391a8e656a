"""REST APIs as sources: which resources are asked for, and how."""

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import check_name
from lakehouse.tables.spec.setting import Setting
from lakehouse.tables.spec.sources import AirbyteStream
from lakehouse.tables.spec.system import SourceSystem


@dataclass(frozen=True)
class Bearer:
    """`Authorization: Bearer <token>`; nothing is sent while the token is empty."""

    token: str | Setting


@dataclass(frozen=True)
class Resource:
    """One list of records of an API.

    Args:
        name: what it is called in its source.
        path: below the API's URL; empty for the URL itself.
        since: the parameter that asks for what changed from an instant on.
        cursor: the field of a record that says when it changed.
        folder: where below `raw/` it lands, when that is not `<source>/<name>`.
    """

    name: str
    path: str = ""
    since: str = "updated_since"
    cursor: str = "updated_at"
    folder: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "resource name")
        check_name(self.cursor, "field name")


@dataclass(frozen=True, kw_only=True)
class RestApi(SourceSystem):
    """An API that answers with JSON.

        LOJA = RestApi("loja_api", url=setting("LOJA_API_URL"), auth=Bearer(setting("LOJA_API_TOKEN", secret=True)),
                       resources=(Resource("pedidos", path="/v1/pedidos"),))
        TableSpec(name="pedidos_loja", source=LOJA.resource("pedidos"), ...)

    Args:
        request_seconds: for one answer, whole.
        cache: for so long the answers of one extraction are good for the next; a timedelta, or a setting in seconds.
    """

    kind: ClassVar[str] = "rest"

    resources: tuple[Resource, ...]
    auth: Bearer | None = None
    request_seconds: float = 30.0
    cache: timedelta | Setting = timedelta()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.request_seconds <= 0 or (isinstance(self.cache, timedelta) and self.cache < timedelta()):
            raise DeclarationError(f"Source {self.name!r}: a duration is negative.", remedy="Give seconds above zero.")

    @property
    def streams(self) -> tuple[Resource, ...]:
        return self.resources

    def resource(self, name: str) -> AirbyteStream:
        """One of its resources as the source of a table.

        Raises:
            DeclarationError: it has no such resource.
        """
        return self.stream(name)
