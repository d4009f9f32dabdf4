"""Making sessions and their tokens. Used by the sign-up, log-in and refresh operations.

Every refresh token is derived from the session's random seed and a key of the server (ADR 0006): a
repeated request gets the same token again, and no token is ever stored.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.identity.domain import (
    ACCESS_TOKEN_LIFETIME,
    OpenSession,
    SessionId,
    StoredSession,
    User,
    UserStatus,
)
from services.identity.errors import AccountSuspendedError, SessionRevokedError, TokenInvalidError
from services.identity.ports import AccessTokens, RandomSource, SecretSource
from services.identity.tokens import RefreshToken, refresh_label, same, secret_hash
from services.shared.clock import Clock
from services.shared.ids import IdSource

_SEED_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLifetimes:
    """How long sessions live."""

    session: timedelta = timedelta(days=90)
    refresh_token: timedelta = timedelta(days=30)
    refresh_replay_window: timedelta = timedelta(minutes=5)


class SessionTokens:
    """Makes new sessions, and the tokens that open sessions have."""

    def __init__(
        self,
        *,
        clock: Clock,
        ids: IdSource,
        random: RandomSource,
        secrets: SecretSource,
        access_tokens: AccessTokens,
        lifetimes: SessionLifetimes,
    ) -> None:
        """Take what tokens are made of."""
        self._clock = clock
        self._ids = ids
        self._random = random
        self._secrets = secrets
        self._access_tokens = access_tokens
        self.lifetimes = lifetimes

    def new_session(self, user: User) -> StoredSession:
        """Return a session of generation 0 that is not stored yet."""
        now = self._clock.now()
        seed = self._random.random_bytes(_SEED_BYTES)
        expire_time = now + self.lifetimes.session
        return StoredSession(
            session_id=SessionId(self._ids.new_id()),
            tenant_id=user.tenant_id,
            user_id=user.user_id,
            token_seed=seed,
            generation=0,
            token_hash=self.next_token_hash(seed, 0),
            token_expire_time=self.token_expire_time(now, expire_time),
            create_time=now,
            expire_time=expire_time,
        )

    def token_expire_time(self, now: datetime, session_expire_time: datetime) -> datetime:
        """Return when a refresh token that is made now expires."""
        return min(now + self.lifetimes.refresh_token, session_expire_time)

    def next_token_hash(self, seed: bytes, generation: int) -> bytes:
        """Return the hash of the token that a generation gets."""
        return secret_hash(self._secrets.derive(seed, refresh_label(generation)))

    def is_authentic(self, session: StoredSession, token: RefreshToken) -> bool:
        """Return whether we made this token for the session, in this generation or one before."""
        if token.generation > session.generation:
            return False
        if same(secret_hash(token.secret), session.token_hash):
            return token.generation == session.generation
        candidates = self._secrets.derive_all(session.token_seed, refresh_label(token.generation))
        return any(same(candidate, token.secret) for candidate in candidates)

    def opened(self, session: StoredSession, user: User) -> OpenSession:
        """Return the session with its tokens; raises when it or its user may not have any."""
        if user.status is UserStatus.SUSPENDED:
            raise AccountSuspendedError
        if session.revoke_cause is not None:
            raise SessionRevokedError(session.revoke_cause)
        now = self._clock.now()
        expire_time = now + ACCESS_TOKEN_LIFETIME
        access_token = self._access_tokens.issue(
            user, session.session_id, now=now, expire_time=expire_time
        )
        return OpenSession(
            session_id=session.session_id,
            user=user,
            access_token=access_token,
            access_token_expire_time=expire_time,
            refresh_token=self._refresh_token(session),
            refresh_token_expire_time=session.token_expire_time,
        )

    def _refresh_token(self, session: StoredSession) -> str:
        label = refresh_label(session.generation)
        for secret in self._secrets.derive_all(session.token_seed, label):
            if same(secret_hash(secret), session.token_hash):
                return RefreshToken(
                    tenant_id=session.tenant_id,
                    session_id=session.session_id,
                    generation=session.generation,
                    secret=secret,
                ).text()
        # Only when the key that made the token was deleted between a request and its repetition.
        raise TokenInvalidError
