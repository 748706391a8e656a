"""What lets us into an API: the headers and parameters of each request, and tokens that are asked for. It shows no secret."""

import json
import threading
import time
from base64 import b64encode
from typing import Any
from urllib.parse import urlsplit

from lakehouse.core.errors import DeclarationError, SourceDownError, SourceRefusedError
from lakehouse.landing.sources.fetch import Endpoint, ask, new_session, shown
from lakehouse.tables.spec.rest import ApiKey, Auth, Basic, Bearer, OAuth2ClientCredentials
from lakehouse.tables.spec.setting import plain

_TOKEN_BYTES = 1_000_000
#: A token is asked for again so long before it expires, and is good for so long where nobody reports how long.
_EARLY_SECONDS, _TOKEN_SECONDS = 30.0, 300.0


class Access:
    """What is added to each request. One may be used by several threads.

    Args:
        auth: as declared, with the values of its settings; None for an API that is open.
        setting: what messages call the credential.
    """

    def __init__(self, auth: Auth | None = None, setting: str = "auth") -> None:
        self.setting = setting
        self._auth = auth
        self._lock = threading.Lock()
        self._token, self._expires = "", 0.0

    @property
    def query(self) -> dict[str, str]:
        """Parameters of the query."""
        if isinstance(self._auth, ApiKey) and self._auth.query and (key := plain(self._auth.key)):
            return {self._auth.query: key}
        return {}

    @property
    def renews(self) -> bool:
        """Whether a token that is refused may be replaced."""
        return isinstance(self._auth, OAuth2ClientCredentials)

    def headers(self, *, seconds: float) -> dict[str, str]:
        """The headers; `seconds` is for a token that has to be asked for.

        Raises:
            SourceDownError: who gives tokens does not answer.
            SourceRefusedError: it gives none.
        """
        auth = self._auth
        if isinstance(auth, Bearer):
            token = plain(auth.token)
            return {"Authorization": f"Bearer {token}"} if token else {}
        if isinstance(auth, ApiKey):
            key = plain(auth.key)
            return {auth.header: key} if auth.header and key else {}
        if isinstance(auth, Basic):
            return {"Authorization": f"Basic {_basic(plain(auth.user), plain(auth.password))}"}
        if isinstance(auth, OAuth2ClientCredentials):
            return {"Authorization": f"Bearer {self._current(auth, seconds)}"}
        return {}

    def renew(self) -> None:
        """Have the next request ask for a token."""
        self._expires = 0.0

    def _current(self, auth: OAuth2ClientCredentials, seconds: float) -> str:
        with self._lock:
            if time.monotonic() >= self._expires:
                self._token, lasts = self._asked(auth, seconds)
                self._expires = time.monotonic() + max(lasts - _EARLY_SECONDS, lasts / 2)
            return self._token

    def _asked(self, auth: OAuth2ClientCredentials, seconds: float) -> tuple[str, float]:
        url = plain(auth.url)
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DeclarationError("The URL for tokens is not a URL.", remedy=f"Write https://host/path; see {self.setting}.")
        where = Endpoint(f"The URL for tokens, {shown(url)},", self.setting, self.setting)
        form = {"grant_type": "client_credentials", **({"scope": auth.scope} if auth.scope else {})}
        headers = {
            "Authorization": f"Basic {_basic(plain(auth.client_id), plain(auth.client_secret))}",
            "Accept": "application/json",
        }
        with new_session() as session:
            body = ask(session, url, where, seconds=seconds, cap=_TOKEN_BYTES, method="POST", form=form, headers=headers).body
        try:
            found: Any = json.loads(body)
            token, lasts = str(found["access_token"]), float(found.get("expires_in", _TOKEN_SECONDS))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SourceRefusedError(
                f"{where.shown} gave no token.", remedy=f"See what it needs; the client is {self.setting}."
            ) from None
        if not token.isascii() or not token.isprintable() or lasts <= 0:
            raise SourceDownError(f"{where.shown} gave a token that cannot be used.", remedy="Run again.")
        return token, lasts


def _basic(user: str, password: str) -> str:
    return b64encode(f"{user}:{password}".encode()).decode()
