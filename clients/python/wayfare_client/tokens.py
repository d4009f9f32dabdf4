"""Access tokens.

kept, sent, and refreshed before and when they end. Calls and streams ask here for their
credentials.
"""

import asyncio
import base64
import binascii
import json
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from wayfare.identity.v1 import session_pb2
from wayfare_client.clock import Clock
from wayfare_client.errors import WayfareError
from wayfare_client.settings import ClientSettings

Metadata = tuple[tuple[str, str], ...]
RefreshCall = Callable[[str, str], Awaitable[session_pb2.Session]]


class SessionStore(Protocol):
    """Keeps a log-in session, so that an app need not log in each time that it starts."""

    def load(self) -> session_pb2.Session | None:
        """Return the session that was kept last, or None."""

    def save(self, session: session_pb2.Session | None) -> None:
        """Keep a session, or forget it.

        called after every refresh, since that uses up the token before.
        """


class MemorySessionStore:
    """Keeps a session for as long as the process runs."""

    def __init__(self) -> None:
        self._session: session_pb2.Session | None = None

    def load(self) -> session_pb2.Session | None:
        """Return the session that was kept last, or None."""
        return self._session

    def save(self, session: session_pb2.Session | None) -> None:
        """Keep a session, or forget it."""
        self._session = session


class AccessTokens:
    """Gives out a fresh access token. However many ask, one refresh is under way at a time."""

    def __init__(
        self,
        refresh: RefreshCall,
        *,
        store: SessionStore,
        clock: Clock,
        settings: ClientSettings,
        metadata: Sequence[tuple[str, str]] = (),
        api_key: str | None = None,
    ) -> None:
        self._refresh_call = refresh
        self._store = store
        self._clock = clock
        self._settings = settings
        self._metadata = tuple(metadata)
        self._api_key = api_key
        self._fixed_token = ""
        self._refreshing: asyncio.Task[None] | None = None
        self._request_id = ""
        self._session = store.load()
        self._refresh_due = 0.0
        self._end = 0.0
        if self._session is not None:
            # How old it is only the clock on the wall can say.
            self._plan(_end_seconds(self._session) - clock.now().timestamp())

    @property
    def session(self) -> session_pb2.Session | None:
        """Return the log-in session, if there is one."""
        return self._session

    def use(self, session: session_pb2.Session | None) -> None:
        """Call with a session from now on, or without one."""
        self._session = session
        self._fixed_token = ""
        self._request_id = ""
        if session is not None:
            self._plan(self._lifetime_seconds(session))
        self._store.save(session)

    def use_fixed(self, access_token: str) -> None:
        """Call with an access token that somebody else refreshes."""
        self._session = None
        self._fixed_token = access_token

    @property
    def public_metadata(self) -> Metadata:
        """Return what is sent with calls that need no credentials."""
        return self._metadata

    def metadata_for(self, token: str) -> Metadata:
        """Return what is sent with a call by an access token.

        without one, the API key if there is one.
        """
        if token:
            return (*self._metadata, ("authorization", f"Bearer {token}"))
        if self._api_key:
            return (*self._metadata, ("x-api-key", self._api_key))
        return self._metadata

    async def current(self) -> str:
        """Return an access token that is good for a while yet, or "" when there is no session.

        Raises:
            WayfareError: the token has ended and could not be refreshed.
        """
        if self._session is None:
            return self._present_token()
        if self._clock.monotonic() >= self._refresh_due:
            used = self._session.access_token
            try:
                await self.renew(used)
            except WayfareError as error:
                if not _is_passing(error) or self._clock.monotonic() >= self._end:
                    raise
        return self._present_token()

    async def renew(self, used: str) -> bool:
        """Replace a token that was refused or is about to end.

        Returns False if there is nothing to replace it with. Does nothing when somebody else
        replaced it meanwhile.
        """
        if self._session is None:
            return False
        if self._session.access_token != used:
            return True
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(self._session))
            self._refreshing.add_done_callback(self._refreshed)
        # Shielded: the refresh uses up the refresh token, whoever waits for it.
        await asyncio.shield(self._refreshing)
        return True

    async def close(self) -> None:
        """End a refresh that is under way."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    def _present_token(self) -> str:
        # Asked anew after a refresh: a session may have been put in or taken away meanwhile.
        return self._fixed_token if self._session is None else self._session.access_token

    async def _refresh(self, session: session_pb2.Session) -> None:
        # The same id until an answer came: a refresh whose answer was lost is repeated, not taken
        # for theft.
        self._request_id = self._request_id or str(uuid.uuid4())
        fresh = await self._refresh_call(session.refresh_token, self._request_id)
        if self._session is session:
            self.use(fresh)

    def _refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        # Read, because everybody who waited may be gone.
        if not task.cancelled():
            task.exception()

    def _plan(self, left_seconds: float) -> None:
        margin = min(self._settings.refresh_margin_seconds, max(0.0, left_seconds) / 5)
        self._end = self._clock.monotonic() + left_seconds
        self._refresh_due = self._end - margin

    def _lifetime_seconds(self, session: session_pb2.Session) -> float:
        # By the token's own two times, since a phone's clock may be wrong by hours.
        issued = _issue_seconds(session.access_token)
        return _end_seconds(session) - (self._clock.now().timestamp() if issued is None else issued)


def _is_passing(error: WayfareError) -> bool:
    return error.code.name in {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL"}


def _end_seconds(session: session_pb2.Session) -> float:
    moment = session.access_token_expire_time
    return moment.seconds + moment.nanos / 1e9


def _issue_seconds(token: str) -> float | None:
    """Read `iat` of a JWT; None if it is none."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["iat"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return None
