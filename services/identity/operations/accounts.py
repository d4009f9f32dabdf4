"""CheckPhone, SignUp and GetMe."""

from dataclasses import dataclass

from services.identity.domain import (
    Actor,
    ClaimedRequest,
    OpenSession,
    Phone,
    RequestId,
    Role,
    SessionId,
    StoredSession,
    TenantId,
    User,
    UserId,
    check_sign_up_role,
    status_for,
)
from services.identity.errors import (
    PhoneTakenError,
    TenantUnknownError,
    UserUnknownError,
)
from services.identity.operations.repeats import claim, find_repeated
from services.identity.operations.tokens_of_sessions import SessionTokens
from services.identity.phones import parse_phone
from services.identity.ports import PasswordHasher, Store
from services.identity.tokens import body_hash
from services.shared.clock import Clock
from services.shared.errors import RequestIdReusedError
from services.shared.ids import IdSource

# People who sign up are nobody yet, so their request ids share one name.
_NOBODY = "anonymous"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignUp:
    """What a person says of themselves."""

    tenant_id: TenantId
    phone: str
    password: str
    display_name: str
    role: Role
    request_id: RequestId


class Accounts:
    """Looks accounts up and makes them."""

    def __init__(
        self,
        *,
        store: Store,
        hasher: PasswordHasher,
        tokens: SessionTokens,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        """Take what accounts are made of."""
        self._store = store
        self._hasher = hasher
        self._tokens = tokens
        self._clock = clock
        self._ids = ids

    async def check_phone(self, tenant_id: TenantId, phone_text: str) -> bool:
        """Return whether the phone has an account with the tenant."""
        phone = parse_phone(phone_text)
        async with self._store.transaction(tenant_id) as transaction:
            if await transaction.tenants.find() is None:
                raise TenantUnknownError(tenant_id)
            return await transaction.users.find_by_phone(phone) is not None

    async def sign_up(self, command: SignUp) -> OpenSession:
        """Make an account and its first session, or return those that the request made before."""
        check_sign_up_role(command.role)
        user = self._new_user(command)
        session = self._tokens.new_session(user)
        request = self._request(command, user, session)
        # Looked at before the password is hashed, so that what must fail costs little.
        async with self._store.transaction(command.tenant_id) as transaction:
            if await transaction.tenants.find() is None:
                raise TenantUnknownError(command.tenant_id)
            # In this order: a repetition that runs beside us commits account and request together.
            taken = await transaction.users.find_by_phone(user.phone) is not None
            earlier = await find_repeated(transaction, request)
            if taken and earlier is None:
                raise PhoneTakenError
        if earlier is None:
            password_hash = await self._hasher.hash(command.password)
            async with self._store.transaction(command.tenant_id) as transaction:
                earlier = await claim(transaction, request)
                if earlier is None:
                    if not await transaction.users.add(user, password_hash=password_hash):
                        raise PhoneTakenError
                    await transaction.sessions.add(session)
        if earlier is not None:
            return await self._repeated(earlier, user.phone, password=command.password)
        return self._tokens.opened(session, user)

    async def get_me(self, actor: Actor) -> User:
        """Return the caller's account as it is now."""
        async with self._store.transaction(actor.tenant_id) as transaction:
            user = await transaction.users.find(actor.user_id)
        if user is None:
            raise UserUnknownError(actor.user_id)
        return user

    async def _repeated(
        self, earlier: ClaimedRequest, phone: Phone, *, password: str
    ) -> OpenSession:
        async with self._store.transaction(earlier.tenant_id) as transaction:
            session = await transaction.sessions.find(SessionId(earlier.result_id))
            if session is None:
                raise RequestIdReusedError(earlier.request_id)
            credentials = await transaction.users.find_credentials(phone)
        # The password is part of the body, and the one part whose plain hash may not be kept.
        if credentials is None or not await self._hasher.verify(
            credentials.password_hash, password
        ):
            raise RequestIdReusedError(earlier.request_id)
        return self._tokens.opened(session, credentials.user)

    def _new_user(self, command: SignUp) -> User:
        now = self._clock.now()
        return User(
            user_id=UserId(self._ids.new_id()),
            tenant_id=command.tenant_id,
            phone=parse_phone(command.phone),
            display_name=command.display_name,
            role=command.role,
            status=status_for(command.role, approved=False),
            create_time=now,
            update_time=now,
        )

    def _request(self, command: SignUp, user: User, session: StoredSession) -> ClaimedRequest:
        fields = {"phone": user.phone, "display_name": user.display_name, "role": user.role}
        return ClaimedRequest(
            tenant_id=command.tenant_id,
            caller=_NOBODY,
            request_id=command.request_id,
            method="SignUp",
            body_hash=body_hash(fields),
            result_id=session.session_id,
            create_time=self._clock.now(),
        )
