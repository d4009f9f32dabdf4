"""CheckPhone, SignUp and GetMe, over ports in memory."""

from datetime import timedelta

import pytest

from services.identity.domain import Role, TenantId, UserId, UserStatus
from services.identity.errors import (
    PhoneInvalidError,
    PhoneTakenError,
    RoleNotAllowedError,
    SessionRevokedError,
    TenantUnknownError,
    UserUnknownError,
)
from services.shared.errors import RequestIdReusedError
from tests.support.identity_operations import PHONE, TENANT, Operations, actor_of

UNKNOWN_TENANT = TenantId("0198c000-0000-7000-8000-00000000dead")


@pytest.fixture
def operations() -> Operations:
    return Operations()


@pytest.mark.parametrize(
    ("role", "status"),
    [(Role.PASSENGER, UserStatus.ACTIVE), (Role.DRIVER, UserStatus.PENDING)],
)
async def test_passengers_are_active_at_once_and_drivers_wait(
    operations: Operations, role: Role, status: UserStatus
) -> None:
    session = await operations.sign_up(role=role)

    assert (session.user.role, session.user.status) == (role, status)
    assert session.user.approve_time is None


@pytest.mark.parametrize("role", [Role.CONDUCTOR, Role.BUSINESS, Role.ADMIN])
async def test_nobody_gives_themselves_a_role_of_staff(operations: Operations, role: Role) -> None:
    with pytest.raises(RoleNotAllowedError) as refusal:
        await operations.sign_up(role=role)

    assert refusal.value.metadata == {"role": role, "allowed_roles": "DRIVER,PASSENGER"}
    assert not operations.store.rows.users


async def test_a_phone_is_registered_after_sign_up_and_not_before(operations: Operations) -> None:
    assert not await operations.accounts.check_phone(TENANT, PHONE)

    await operations.sign_up()

    assert await operations.accounts.check_phone(TENANT, PHONE)


async def test_an_unknown_tenant_is_named(operations: Operations) -> None:
    with pytest.raises(TenantUnknownError):
        await operations.accounts.check_phone(UNKNOWN_TENANT, PHONE)
    with pytest.raises(TenantUnknownError):
        await operations.sign_up(tenant_id=UNKNOWN_TENANT)


async def test_a_second_sign_up_of_a_phone_is_refused_however_it_is_spelt(
    operations: Operations,
) -> None:
    await operations.sign_up(phone="+441514960123")

    with pytest.raises(PhoneTakenError):
        await operations.sign_up(phone="+4401514960123")

    assert len(operations.store.rows.users) == 1


async def test_a_number_that_cannot_exist_is_refused_without_naming_it(
    operations: Operations,
) -> None:
    with pytest.raises(PhoneInvalidError) as refusal:
        await operations.sign_up(phone="+44123456")

    assert "+44123456" not in f"{refusal.value} {refusal.value.metadata}"


async def test_a_repeated_sign_up_gives_the_same_account_and_refresh_token(
    operations: Operations,
) -> None:
    command = operations.sign_up_command()
    first = await operations.accounts.sign_up(command)
    operations.clock.pass_time(timedelta(hours=1))

    again = await operations.accounts.sign_up(command)

    assert again.user == first.user
    assert again.refresh_token == first.refresh_token
    assert again.access_token_expire_time > first.access_token_expire_time
    assert len(operations.store.rows.sessions) == 1


@pytest.mark.parametrize(
    "change",
    [{"display_name": "Bob"}, {"role": Role.DRIVER}, {"password": "another password"}],
    ids=["name", "role", "password"],
)
async def test_a_used_request_id_with_another_body_is_refused(
    operations: Operations, change: dict[str, object]
) -> None:
    command = operations.sign_up_command()
    await operations.accounts.sign_up(command)

    with pytest.raises(RequestIdReusedError):
        await operations.sign_up(request_id=command.request_id, **change)


async def test_a_failed_sign_up_leaves_its_request_id_free(operations: Operations) -> None:
    await operations.sign_up()
    request_id = operations.request_id()
    with pytest.raises(PhoneTakenError):
        await operations.sign_up(request_id=request_id)

    other = await operations.sign_up(phone="+441514960124", request_id=request_id)

    assert other.user.phone == "+441514960124"


async def test_a_repeated_sign_up_after_its_session_ended_says_so(operations: Operations) -> None:
    command = operations.sign_up_command()
    session = await operations.accounts.sign_up(command)
    actor = actor_of(session.user, session.session_id)
    await operations.sessions.log_out(actor, all_sessions=False)

    with pytest.raises(SessionRevokedError):
        await operations.accounts.sign_up(command)


async def test_no_password_and_no_token_is_kept(operations: Operations) -> None:
    session = await operations.sign_up(password="correct horse battery")

    rows = operations.store.rows
    kept = f"{rows.requests}{rows.sessions}{rows.users}"
    assert "correct horse battery" not in kept
    assert session.refresh_token not in kept


async def test_my_account_is_told_as_it_is_now(operations: Operations) -> None:
    session = await operations.sign_up()

    assert await operations.accounts.get_me(actor_of(session.user)) == session.user
    stranger = actor_of(session.user)
    operations.store.rows.users.clear()
    with pytest.raises(UserUnknownError):
        await operations.accounts.get_me(stranger)


async def test_the_first_admin_is_made_once_and_keeps_their_password(
    operations: Operations,
) -> None:
    from services.identity.operations.upkeep import FirstAdmin

    wanted = FirstAdmin(
        tenant_id=UNKNOWN_TENANT, tenant_name="New", phone=PHONE, password="first password"
    )
    assert await operations.upkeep.ensure_first_admin(wanted)

    other = FirstAdmin(
        tenant_id=UNKNOWN_TENANT, tenant_name="New", phone=PHONE, password="second password"
    )
    assert not await operations.upkeep.ensure_first_admin(other)

    session = await operations.log_in(tenant_id=UNKNOWN_TENANT, password="first password")
    assert (session.user.role, session.user.status) == (Role.ADMIN, UserStatus.ACTIVE)
    assert session.user.user_id == UserId(next(iter(operations.store.rows.users)))
