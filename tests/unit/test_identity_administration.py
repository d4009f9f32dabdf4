"""ApproveDriver, ListUsers and UpdateUser, over ports in memory."""

from datetime import timedelta

import pytest

from services.identity.domain import (
    Role,
    TenantId,
    User,
    UserChange,
    UserId,
    UserStatus,
)
from services.identity.errors import (
    LastAdminError,
    NotADriverError,
    PageTokenInvalidError,
    SessionRevokedError,
    StatusChangeNotAllowedError,
    UserUnknownError,
)
from services.identity.operations.administration import UserQuery
from services.shared.errors import RequestIdReusedError
from tests.support.identity_operations import Operations


@pytest.fixture
def operations() -> Operations:
    return Operations()


async def pending_driver(operations: Operations) -> User:
    return await operations.add_user(role=Role.DRIVER, status=UserStatus.PENDING)


async def updated(operations: Operations, user: User, **change: object) -> User:
    admin = await operations.add_admin()
    return await operations.administration.update_user(
        admin,
        user.user_id,
        change=UserChange(**change),  # type: ignore[arg-type]  # fields by name
        request_id=None,
    )


async def test_an_approved_driver_is_active_and_stays_so(operations: Operations) -> None:
    admin, driver = await operations.add_admin(), await pending_driver(operations)

    approved = await operations.administration.approve_driver(
        admin, driver.user_id, request_id=None
    )
    operations.clock.pass_time(timedelta(hours=1))
    again = await operations.administration.approve_driver(admin, driver.user_id, request_id=None)

    assert approved.status is UserStatus.ACTIVE
    assert again == approved
    assert operations.store.rows.users[driver.user_id] == approved


async def test_only_drivers_are_approved(operations: Operations) -> None:
    admin, passenger = await operations.add_admin(), await operations.add_user()

    with pytest.raises(NotADriverError):
        await operations.administration.approve_driver(admin, passenger.user_id, request_id=None)


async def test_a_suspended_driver_is_not_approved(operations: Operations) -> None:
    admin = await operations.add_admin()
    driver = await operations.add_user(role=Role.DRIVER, status=UserStatus.SUSPENDED)

    with pytest.raises(StatusChangeNotAllowedError):
        await operations.administration.approve_driver(admin, driver.user_id, request_id=None)


async def test_an_unknown_account_is_named(operations: Operations) -> None:
    admin = await operations.add_admin()

    with pytest.raises(UserUnknownError):
        await operations.administration.approve_driver(
            admin, UserId("0198c000-0000-7000-8000-00000000dead"), request_id=None
        )


async def test_another_tenants_account_is_unknown(operations: Operations) -> None:
    stranger = await operations.add_user(tenant_id=TenantId("another tenant"))

    with pytest.raises(UserUnknownError):
        await updated(operations, stranger, display_name="Mallory")


async def test_a_change_without_difference_changes_nothing(operations: Operations) -> None:
    user = await operations.add_user(display_name="Ada")
    operations.clock.pass_time(timedelta(hours=1))

    assert await updated(operations, user, display_name="Ada", role=Role.PASSENGER) == user


@pytest.mark.parametrize("role", [Role.CONDUCTOR, Role.BUSINESS, Role.ADMIN])
async def test_an_admin_gives_roles_of_staff(operations: Operations, role: Role) -> None:
    user = await updated(operations, await operations.add_user(), role=role)

    assert (user.role, user.status) == (role, UserStatus.ACTIVE)


async def test_who_becomes_a_driver_waits_for_approval(operations: Operations) -> None:
    user = await updated(operations, await operations.add_user(), role=Role.DRIVER)

    assert user.status is UserStatus.PENDING
    assert (await updated(operations, user, role=Role.PASSENGER)).status is UserStatus.ACTIVE


@pytest.mark.parametrize("wanted", [UserStatus.ACTIVE, UserStatus.SUSPENDED])
async def test_an_unapproved_driver_never_becomes_active_by_an_update(
    operations: Operations, wanted: UserStatus
) -> None:
    driver = await pending_driver(operations)

    if wanted is UserStatus.ACTIVE:
        with pytest.raises(StatusChangeNotAllowedError):
            await updated(operations, driver, status=wanted)
    else:
        await updated(operations, driver, status=wanted)
        assert (
            await updated(operations, driver, status=UserStatus.ACTIVE)
        ).status is UserStatus.PENDING


async def test_a_suspension_ends_every_session(operations: Operations) -> None:
    session = await operations.sign_up()
    await operations.log_in()

    await updated(operations, session.user, status=UserStatus.SUSPENDED)

    sessions = operations.store.rows.sessions.values()
    assert {kept.revoke_cause for kept in sessions} == {"SUSPENDED"}
    await updated(operations, session.user, status=UserStatus.ACTIVE)
    with pytest.raises(SessionRevokedError):
        await operations.sessions.refresh(session.refresh_token, operations.request_id())


@pytest.mark.parametrize(
    "change",
    [{"status": UserStatus.SUSPENDED}, {"role": Role.BUSINESS}],
    ids=["suspended", "demoted"],
)
async def test_the_last_admin_stays(operations: Operations, change: dict[str, object]) -> None:
    admin = await operations.add_admin()
    other = await operations.add_user(role=Role.ADMIN, status=UserStatus.SUSPENDED)

    with pytest.raises(LastAdminError):
        await operations.administration.update_user(
            admin,
            admin.user_id,
            change=UserChange(**change),  # type: ignore[arg-type]  # fields by name
            request_id=None,
        )

    assert other.status is UserStatus.SUSPENDED


async def test_an_update_is_applied_once_per_request_id(operations: Operations) -> None:
    admin, user = await operations.add_admin(), await operations.add_user(display_name="Ada")
    request_id = operations.request_id()

    async def rename(name: str) -> User:
        return await operations.administration.update_user(
            admin, user.user_id, change=UserChange(display_name=name), request_id=request_id
        )

    await rename("Bob")
    await updated(operations, user, display_name="Carol")

    assert (await rename("Bob")).display_name == "Carol"
    with pytest.raises(RequestIdReusedError):
        await rename("Dan")
    with pytest.raises(RequestIdReusedError):
        await operations.administration.approve_driver(admin, user.user_id, request_id=request_id)


def a_query(**values: object) -> UserQuery:
    fields: dict[str, object] = {"role": None, "status": None, "page_size": 2, "page_token": ""}
    return UserQuery(**(fields | values))  # type: ignore[arg-type]  # fields by name


async def test_pages_go_on_without_gap_or_repetition(operations: Operations) -> None:
    admin = await operations.add_admin()
    added = [(await operations.add_user()).user_id for _ in range(5)]
    listed: list[UserId] = []
    token = ""

    for _ in range(3):
        page = await operations.administration.list_users(
            admin, a_query(role=Role.PASSENGER, page_token=token)
        )
        listed += [user.user_id for user in page.users]
        token = page.next_page_token

    assert listed == added[::-1]
    assert not token


async def test_a_page_token_belongs_to_its_filters_and_tenant(operations: Operations) -> None:
    admin = await operations.add_admin()
    for _ in range(3):
        await operations.add_user()
    page = await operations.administration.list_users(admin, a_query())
    token = page.next_page_token

    for query in (
        a_query(page_token=token, role=Role.DRIVER),
        a_query(page_token=token, status=UserStatus.ACTIVE),
        a_query(page_token=f"{token}A"),
        a_query(page_token="é"),
    ):
        with pytest.raises(PageTokenInvalidError):
            await operations.administration.list_users(admin, query)
    await operations.administration.list_users(admin, a_query(page_token=token, page_size=500))
