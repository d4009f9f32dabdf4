"""ApproveDriver, ListUsers and UpdateUser: what an ADMIN does with the accounts of their tenant."""

from dataclasses import asdict, dataclass

from services.identity.domain import (
    Actor,
    ClaimedRequest,
    RequestId,
    RevokeCause,
    Role,
    User,
    UserChange,
    UserId,
    UserStatus,
    approve,
    changed,
    coerced_page_size,
    loses_admin,
)
from services.identity.errors import LastAdminError, UserUnknownError
from services.identity.operations.repeats import claim
from services.identity.paging import decode_page_token, encode_page_token
from services.identity.ports import Store, Transaction
from services.identity.tokens import body_hash
from services.shared.clock import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class UserQuery:
    """Which accounts, and which page of them."""

    role: Role | None
    status: UserStatus | None
    page_size: int
    page_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPage:
    """A page of accounts; no token on the last."""

    users: tuple[User, ...]
    next_page_token: str


class Administration:
    """Changes accounts for an ADMIN of their tenant.

    That the actor is one is the contract's policy.
    """

    def __init__(self, *, store: Store, clock: Clock) -> None:
        """Take where accounts are and what time it is."""
        self._store = store
        self._clock = clock

    async def approve_driver(
        self, actor: Actor, user_id: UserId, *, request_id: RequestId | None
    ) -> User:
        """Let a driver drive; the account as it is then."""
        request = self._request(actor, "ApproveDriver", user_id=user_id, request_id=request_id)
        async with self._store.transaction(actor.tenant_id) as transaction:
            user = await _locked(transaction, user_id)
            if await claim(transaction, request) is not None:
                return user
            approved = approve(user, now=self._clock.now())
            if approved != user:
                await transaction.users.save(approved)
            return approved

    async def update_user(
        self, actor: Actor, user_id: UserId, *, change: UserChange, request_id: RequestId | None
    ) -> User:
        """Change name, role or status; suspending ends every session of the account."""
        request = self._request(
            actor, "UpdateUser", user_id=user_id, request_id=request_id, **asdict(change)
        )
        now = self._clock.now()
        async with self._store.transaction(actor.tenant_id) as transaction:
            user = await _locked(transaction, user_id)
            if await claim(transaction, request) is not None:
                return user
            after = changed(user, change, now=now)
            if after == user:
                return user
            if loses_admin(user, after) and not await transaction.users.count_other_admins(user_id):
                raise LastAdminError
            await transaction.users.save(after)
            if after.status is UserStatus.SUSPENDED:
                await transaction.sessions.revoke_all(user_id, cause=RevokeCause.SUSPENDED, now=now)
            return after

    async def list_users(self, actor: Actor, query: UserQuery) -> UserPage:
        """Return a page of the tenant's accounts, newest first."""
        filters = {
            "list": "users",
            "tenant_id": actor.tenant_id,
            "role": query.role or "",
            "status": query.status or "",
        }
        last_id = decode_page_token(query.page_token, filters=filters)
        size = coerced_page_size(query.page_size)
        async with self._store.transaction(actor.tenant_id) as transaction:
            # One more than the page holds tells whether there is a page after it.
            users = await transaction.users.list(
                role=query.role,
                status=query.status,
                before=UserId(last_id) if last_id else None,
                limit=size + 1,
            )
        page = tuple(users[:size])
        more = len(users) > size
        token = encode_page_token(page[-1].user_id, filters=filters) if more else ""
        return UserPage(users=page, next_page_token=token)

    def _request(
        self,
        actor: Actor,
        method: str,
        *,
        user_id: UserId,
        request_id: RequestId | None,
        **fields: object,
    ) -> ClaimedRequest | None:
        if request_id is None:
            return None
        return ClaimedRequest(
            tenant_id=actor.tenant_id,
            caller=actor.user_id,
            request_id=request_id,
            method=method,
            body_hash=body_hash({"user_id": user_id, **fields}),
            result_id=user_id,
            create_time=self._clock.now(),
        )


async def _locked(transaction: Transaction, user_id: UserId) -> User:
    user = await transaction.users.find(user_id, lock=True)
    if user is None:
        raise UserUnknownError(user_id)
    return user
