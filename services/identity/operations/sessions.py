"""LogIn, RefreshSession and LogOut."""

from dataclasses import dataclass, replace

from services.identity.domain import (
    Actor,
    ClaimedRequest,
    Credentials,
    OpenSession,
    Refresh,
    RequestId,
    RevokeCause,
    SessionId,
    StoredSession,
    TenantId,
    User,
    UserStatus,
    decide_refresh,
)
from services.identity.errors import (
    AccountSuspendedError,
    CredentialsWrongError,
    SessionRevokedError,
    TokenExpiredError,
    TokenInvalidError,
    UserUnknownError,
)
from services.identity.operations.repeats import claim
from services.identity.operations.tokens_of_sessions import SessionTokens
from services.identity.phones import normalised_phone
from services.identity.ports import LogInAttempts, PasswordHasher, Store, Transaction
from services.identity.tokens import body_hash, parse_refresh_token
from services.shared.clock import Clock
from services.shared.errors import OverloadedError, RequestIdReusedError


@dataclass(frozen=True, slots=True, kw_only=True)
class LogIn:
    """Who somebody says they are, and from where."""

    tenant_id: TenantId
    phone: str
    password: str
    ip_address: str
    request_id: RequestId | None = None


class Sessions:
    """Opens, refreshes and ends sessions."""

    def __init__(
        self,
        *,
        store: Store,
        hasher: PasswordHasher,
        attempts: LogInAttempts,
        tokens: SessionTokens,
        clock: Clock,
    ) -> None:
        """Take what sessions are made of."""
        self._store = store
        self._hasher = hasher
        self._attempts = attempts
        self._tokens = tokens
        self._clock = clock

    async def log_in(self, command: LogIn) -> OpenSession:
        """Open a session, or return the one that the request opened before."""
        phone = normalised_phone(command.phone)
        await self._attempts.begin(command.tenant_id, phone, ip_address=command.ip_address)
        async with self._store.transaction(command.tenant_id) as transaction:
            found = await transaction.users.find_credentials(phone)
        # An unknown phone is checked against a hash that nothing matches, so that it takes as long.
        password_hash = None if found is None else found.password_hash
        right = await self._hasher.verify(password_hash, command.password)
        if found is None or not right:
            raise CredentialsWrongError
        await self._attempts.succeed(command.tenant_id, phone, ip_address=command.ip_address)
        new_hash = await self._new_hash(found, command.password)
        return await self._open(command, found.user, new_hash=new_hash)

    async def refresh(self, token_text: str, request_id: RequestId) -> OpenSession:
        """Replace a session's tokens; a token that was replaced before ends the session."""
        token = parse_refresh_token(token_text)
        if token is None:
            raise TokenInvalidError
        # What was decided is committed, then told: raising inside would undo a revocation.
        async with self._store.transaction(token.tenant_id) as transaction:
            session = await transaction.sessions.find(token.session_id, lock=True)
            if session is None or not self._tokens.is_authentic(session, token):
                raise TokenInvalidError
            user = await transaction.users.find(session.user_id)
            if user is None:
                raise TokenInvalidError
            if user.status is UserStatus.SUSPENDED:
                raise AccountSuspendedError
            outcome = decide_refresh(
                session,
                token.generation,
                request_id=request_id,
                now=self._clock.now(),
                replay_window=self._tokens.lifetimes.refresh_replay_window,
            )
            session = await self._apply(
                transaction, outcome, session=session, request_id=request_id
            )
        self._raise_refusal(outcome, session, request_id=request_id)
        return self._tokens.opened(session, user)

    async def log_out(self, actor: Actor, *, all_sessions: bool) -> int:
        """End the caller's session, or all sessions of the caller.

        Return how many had not ended.
        """
        now = self._clock.now()
        async with self._store.transaction(actor.tenant_id) as transaction:
            if all_sessions:
                return await transaction.sessions.revoke_all(
                    actor.user_id, cause=RevokeCause.LOGGED_OUT, now=now
                )
            ended = await transaction.sessions.revoke(
                actor.session_id, cause=RevokeCause.LOGGED_OUT, now=now
            )
            return int(ended)

    async def _new_hash(self, found: Credentials, password: str) -> str | None:
        if not self._hasher.needs_rehash(found.password_hash):
            return None
        try:
            return await self._hasher.hash(password)
        except OverloadedError:
            return None  # The next log-in does it.

    async def _open(self, command: LogIn, user: User, *, new_hash: str | None) -> OpenSession:
        session = self._tokens.new_session(user)
        request = self._request(command, user, session)
        async with self._store.transaction(command.tenant_id) as transaction:
            # Locked, so that a suspension comes before the session or ends it.
            current = await transaction.users.find(user.user_id, lock=True)
            if current is None:
                raise UserUnknownError(user.user_id)
            if current.status is UserStatus.SUSPENDED:
                raise AccountSuspendedError
            if new_hash is not None:
                await transaction.users.set_password_hash(user.user_id, new_hash)
            earlier = await claim(transaction, request)
            if earlier is None:
                await transaction.sessions.add(session)
            else:
                session = await self._earlier_session(transaction, earlier)
        return self._tokens.opened(session, current)

    async def _earlier_session(
        self, transaction: Transaction, earlier: ClaimedRequest
    ) -> StoredSession:
        session = await transaction.sessions.find(SessionId(earlier.result_id))
        if session is None:
            raise RequestIdReusedError(earlier.request_id)
        return session

    async def _apply(
        self,
        transaction: Transaction,
        outcome: Refresh,
        *,
        session: StoredSession,
        request_id: RequestId,
    ) -> StoredSession:
        now = self._clock.now()
        if outcome is Refresh.REUSE:
            cause = RevokeCause.TOKEN_REUSED
            await transaction.sessions.revoke(session.session_id, cause=cause, now=now)
            return replace(session, revoke_time=now, revoke_cause=cause)
        if outcome is not Refresh.ROTATE:
            return session
        rotated = replace(
            session,
            generation=session.generation + 1,
            token_hash=self._tokens.next_token_hash(session.token_seed, session.generation + 1),
            token_expire_time=self._tokens.token_expire_time(now, session.expire_time),
        )
        done = await transaction.sessions.rotate(
            session.session_id,
            session.generation,
            token_hash=rotated.token_hash,
            token_expire_time=rotated.token_expire_time,
            request_id=request_id,
            now=now,
        )
        if not done:
            raise TokenInvalidError
        return rotated

    def _raise_refusal(
        self, outcome: Refresh, session: StoredSession, *, request_id: RequestId
    ) -> None:
        if outcome in (Refresh.REVOKED, Refresh.REUSE):
            raise SessionRevokedError(session.revoke_cause or RevokeCause.LOGGED_OUT)
        if outcome is Refresh.EXPIRED:
            raise TokenExpiredError(session.token_expire_time)
        if outcome is Refresh.REQUEST_ID_REUSED:
            raise RequestIdReusedError(request_id)

    def _request(self, command: LogIn, user: User, session: StoredSession) -> ClaimedRequest | None:
        if command.request_id is None:
            return None
        return ClaimedRequest(
            tenant_id=command.tenant_id,
            caller=user.user_id,
            request_id=command.request_id,
            method="LogIn",
            body_hash=body_hash({"phone": user.phone}),
            result_id=session.session_id,
            create_time=self._clock.now(),
        )
