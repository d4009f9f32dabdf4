"""What IdentityService does unasked; called by app.py."""

from dataclasses import dataclass
from datetime import timedelta

from services.identity.domain import Role, Tenant, TenantId, User, UserId, UserStatus
from services.identity.phones import parse_phone
from services.identity.ports import ApiKeyUses, PasswordHasher, Store
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError
from services.shared.ids import IdSource

# Repetitions come within minutes; a day covers a phone that was switched off.
_REQUESTS_KEPT = timedelta(hours=24)
# Ended sessions stay this long, so that a stolen old token is still recognised and logged as such.
_ENDED_SESSIONS_KEPT = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstAdmin:
    """The tenant and ADMIN with which an empty system begins."""

    tenant_id: TenantId
    tenant_name: str
    phone: str
    password: str


class Upkeep:
    """Keeps the store as it should be."""

    def __init__(
        self,
        *,
        store: Store,
        hasher: PasswordHasher,
        uses: ApiKeyUses,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        """Take what is looked after."""
        self._store = store
        self._hasher = hasher
        self._uses = uses
        self._clock = clock
        self._ids = ids

    async def ensure_first_admin(self, wanted: FirstAdmin) -> bool:
        """Make the tenant and its ADMIN where absent; return whether the ADMIN is new.

        Many processes may do so at once. An ADMIN who exists keeps their password.
        """
        phone = parse_phone(wanted.phone)
        async with self._store.transaction(wanted.tenant_id) as transaction:
            if await transaction.users.find_by_phone(phone) is not None:
                return False
        password_hash = await self._hasher.hash(wanted.password)
        now = self._clock.now()
        tenant = Tenant(
            tenant_id=wanted.tenant_id, display_name=wanted.tenant_name, create_time=now
        )
        admin = User(
            user_id=UserId(self._ids.new_id()),
            tenant_id=wanted.tenant_id,
            phone=phone,
            display_name="Administrator",
            role=Role.ADMIN,
            status=UserStatus.ACTIVE,
            create_time=now,
            update_time=now,
        )
        async with self._store.transaction(wanted.tenant_id) as transaction:
            await transaction.tenants.add(tenant)
            return await transaction.users.add(admin, password_hash=password_hash)

    async def write_api_key_uses(self) -> int:
        """Write the counts that came together since the last time; return of how many keys."""
        uses = await self._uses.take()
        for position, use in enumerate(uses):
            try:
                async with self._store.transaction(use.tenant_id) as transaction:
                    await transaction.api_keys.add_uses(
                        use.key_id, count=use.count, last_use_time=use.last_use_time
                    )
            except DependencyUnavailableError:
                await self._uses.put_back(uses[position:])
                raise
        return len(uses)

    async def forget_old(self) -> int:
        """Delete remembered writes and long-ended sessions; return how many."""
        now = self._clock.now()
        return await self._store.forget_before(
            requests=now - _REQUESTS_KEPT, sessions=now - _ENDED_SESSIONS_KEPT
        )
