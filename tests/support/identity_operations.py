"""The operations of IdentityService over ports in memory, ready to be called."""

from dataclasses import replace

from services.identity.domain import (
    Actor,
    OpenSession,
    Phone,
    RequestId,
    Role,
    SessionId,
    Tenant,
    TenantId,
    User,
    UserId,
    UserStatus,
)
from services.identity.operations.accounts import Accounts, SignUp
from services.identity.operations.administration import Administration
from services.identity.operations.api_keys import ApiKeys
from services.identity.operations.sessions import LogIn, Sessions
from services.identity.operations.tokens_of_sessions import SessionLifetimes, SessionTokens
from services.identity.operations.upkeep import Upkeep
from tests.support.identity_fakes import (
    FakeAccessTokens,
    FakeAttempts,
    FakeClock,
    FakeHasher,
    FakeIds,
    FakeRandom,
    FakeSecrets,
    FakeStore,
    FakeUses,
)

TENANT = TenantId("0198c000-0000-7000-8000-000000000001")
PHONE = "+441514960123"
PASSWORD = "a password of mine"


class Operations:
    """Every operation, and the fakes that they use."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.ids = FakeIds()
        self.store = FakeStore()
        self.hasher = FakeHasher()
        self.attempts = FakeAttempts()
        self.uses = FakeUses()
        self.secrets = FakeSecrets()
        random = FakeRandom()
        tokens = SessionTokens(
            clock=self.clock,
            ids=self.ids,
            random=random,
            secrets=self.secrets,
            access_tokens=FakeAccessTokens(),
            lifetimes=SessionLifetimes(),
        )
        self.accounts = Accounts(
            store=self.store,
            hasher=self.hasher,
            tokens=tokens,
            clock=self.clock,
            ids=self.ids,
        )
        self.sessions = Sessions(
            store=self.store,
            hasher=self.hasher,
            attempts=self.attempts,
            tokens=tokens,
            clock=self.clock,
        )
        self.administration = Administration(store=self.store, clock=self.clock)
        self.api_keys = ApiKeys(
            store=self.store,
            uses=self.uses,
            secrets=self.secrets,
            random=random,
            clock=self.clock,
            ids=self.ids,
        )
        self.upkeep = Upkeep(
            store=self.store,
            hasher=self.hasher,
            uses=self.uses,
            clock=self.clock,
            ids=self.ids,
        )
        self.store.rows.tenants[TENANT] = Tenant(
            tenant_id=TENANT, display_name="Demo", create_time=self.clock.now()
        )

    def request_id(self) -> RequestId:
        """Return a request id that was not used."""
        return RequestId(self.ids.new_id())

    def sign_up_command(self, **values: object) -> SignUp:
        """Return a sign-up of a passenger, with other values where given."""
        command = SignUp(
            tenant_id=TENANT,
            phone=PHONE,
            password=PASSWORD,
            display_name="Ada",
            role=Role.PASSENGER,
            request_id=self.request_id(),
        )
        return replace(command, **values)  # type: ignore[arg-type]  # fields by name

    async def sign_up(self, **values: object) -> OpenSession:
        """Sign up."""
        return await self.accounts.sign_up(self.sign_up_command(**values))

    async def log_in(self, **values: object) -> OpenSession:
        """Log in with the phone and password of `sign_up`."""
        command = LogIn(tenant_id=TENANT, phone=PHONE, password=PASSWORD, ip_address="192.0.2.1")
        return await self.sessions.log_in(
            replace(command, **values)  # type: ignore[arg-type]  # fields by name
        )

    async def add_user(self, **values: object) -> User:
        """Put an account into the store."""
        now = self.clock.now()
        user = User(
            user_id=UserId(self.ids.new_id()),
            tenant_id=TENANT,
            phone=Phone(f"+1202555{len(self.store.rows.users):04d}"),
            display_name="Grace",
            role=Role.PASSENGER,
            status=UserStatus.ACTIVE,
            create_time=now,
            update_time=now,
        )
        user = replace(user, **values)  # type: ignore[arg-type]  # fields by name
        async with self.store.transaction(TENANT) as transaction:
            assert await transaction.users.add(user, password_hash="$argon2id$1$x")
        return user

    async def add_admin(self) -> Actor:
        """Put an ADMIN into the store and return them as a caller."""
        return actor_of(await self.add_user(role=Role.ADMIN))


def actor_of(user: User, session_id: str = "") -> Actor:
    """Return a user as a caller."""
    return Actor(tenant_id=user.tenant_id, user_id=user.user_id, session_id=SessionId(session_id))
