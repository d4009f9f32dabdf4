"""LogIn, RefreshSession and LogOut, over ports in memory."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from services.identity.domain import OpenSession, RequestId, UserStatus
from services.identity.errors import (
    AccountSuspendedError,
    CredentialsWrongError,
    SessionRevokedError,
    TokenExpiredError,
    TokenInvalidError,
    TooManyAttemptsError,
)
from services.identity.tokens import parse_refresh_token
from services.shared.errors import DomainError, RequestIdReusedError
from tests.support.identity_operations import Operations, actor_of


@pytest.fixture
def operations() -> Operations:
    return Operations()


async def refreshed(
    operations: Operations, session: OpenSession, request_id: RequestId | None = None
) -> OpenSession:
    request_id = request_id or operations.request_id()
    return await operations.sessions.refresh(session.refresh_token, request_id)


async def test_the_right_password_opens_a_session_of_its_own(operations: Operations) -> None:
    first = await operations.sign_up()

    session = await operations.log_in()

    assert session.user == first.user
    assert session.session_id != first.session_id
    assert session.access_token_expire_time - operations.clock.now() == timedelta(minutes=15)
    assert session.refresh_token_expire_time - operations.clock.now() == timedelta(days=30)


async def test_an_unknown_phone_costs_a_password_check_like_a_wrong_password(
    operations: Operations,
) -> None:
    await operations.sign_up()

    with pytest.raises(CredentialsWrongError) as wrong:
        await operations.log_in(password="not this one")
    with pytest.raises(CredentialsWrongError) as unknown:
        await operations.log_in(phone="+441514960999")

    assert operations.hasher.checks == [True, False]
    assert str(wrong.value) == str(unknown.value)


async def test_too_many_wrong_passwords_refuse_the_right_one_too(operations: Operations) -> None:
    await operations.sign_up()
    for _ in range(operations.attempts.limit):
        with pytest.raises(CredentialsWrongError):
            await operations.log_in(password="not this one")

    with pytest.raises(TooManyAttemptsError):
        await operations.log_in()

    assert len(operations.hasher.checks) == operations.attempts.limit


async def test_a_right_password_forgets_the_wrong_ones(operations: Operations) -> None:
    await operations.sign_up()
    for _ in range(3):
        with pytest.raises(CredentialsWrongError):
            await operations.log_in(password="not this one")
        operations.attempts.limit += 1
        await operations.log_in()

    assert not operations.attempts.counts


async def test_a_suspension_is_told_only_to_who_knows_the_password(
    operations: Operations,
) -> None:
    session = await operations.sign_up()
    suspended = replace(session.user, status=UserStatus.SUSPENDED)
    operations.store.rows.users[session.user.user_id] = suspended

    with pytest.raises(CredentialsWrongError):
        await operations.log_in(password="not this one")
    with pytest.raises(AccountSuspendedError):
        await operations.log_in()


async def test_a_repeated_log_in_gives_the_same_session(operations: Operations) -> None:
    await operations.sign_up()
    request_id = operations.request_id()

    first = await operations.log_in(request_id=request_id)
    again = await operations.log_in(request_id=request_id)

    assert again.refresh_token == first.refresh_token
    assert len(operations.store.rows.sessions) == 2


async def test_a_log_in_without_request_id_opens_a_session_every_time(
    operations: Operations,
) -> None:
    await operations.sign_up()

    assert (await operations.log_in()).session_id != (await operations.log_in()).session_id


async def test_a_hash_of_another_cost_is_replaced_at_log_in(operations: Operations) -> None:
    session = await operations.sign_up()
    operations.hasher.cost = 2

    await operations.log_in()

    kept = operations.store.rows.password_hashes[session.user.user_id]
    assert kept.startswith("$argon2id$2$")
    await operations.log_in()


async def test_a_refresh_replaces_the_token_and_keeps_the_session(operations: Operations) -> None:
    session = await operations.sign_up()

    second = await refreshed(operations, session)
    third = await refreshed(operations, second)

    tokens = {session.refresh_token, second.refresh_token, third.refresh_token}
    assert len(tokens) == 3
    assert {second.session_id, third.session_id} == {session.session_id}


async def test_a_used_up_token_ends_the_session_for_everybody(operations: Operations) -> None:
    session = await operations.sign_up()
    second = await refreshed(operations, session)

    with pytest.raises(SessionRevokedError) as refusal:
        await refreshed(operations, session)
    assert refusal.value.metadata == {"cause": "TOKEN_REUSED"}
    with pytest.raises(SessionRevokedError):
        await refreshed(operations, second)


async def test_a_token_of_long_ago_ends_the_session_too(operations: Operations) -> None:
    first = await operations.sign_up()
    session = first
    for _ in range(5):
        session = await refreshed(operations, session)

    with pytest.raises(SessionRevokedError):
        await refreshed(operations, first)


async def test_a_repeated_refresh_gives_the_same_token(operations: Operations) -> None:
    session = await operations.sign_up()
    request_id = operations.request_id()
    second = await refreshed(operations, session, request_id)
    operations.clock.pass_time(timedelta(minutes=5))

    again = await refreshed(operations, session, request_id)

    assert again.refresh_token == second.refresh_token
    await refreshed(operations, again)


async def test_a_refresh_repeated_too_late_ends_the_session(operations: Operations) -> None:
    session = await operations.sign_up()
    request_id = operations.request_id()
    await refreshed(operations, session, request_id)
    operations.clock.pass_time(timedelta(minutes=5, seconds=1))

    with pytest.raises(SessionRevokedError):
        await refreshed(operations, session, request_id)


async def test_the_request_id_of_the_refresh_before_is_refused_and_harms_nothing(
    operations: Operations,
) -> None:
    request_id = operations.request_id()
    second = await refreshed(operations, await operations.sign_up(), request_id)

    with pytest.raises(RequestIdReusedError):
        await refreshed(operations, second, request_id)

    await refreshed(operations, second)


async def test_of_twenty_refreshes_with_one_token_one_succeeds(operations: Operations) -> None:
    session = await operations.sign_up()

    answers = await asyncio.gather(
        *(refreshed(operations, session) for _ in range(20)), return_exceptions=True
    )

    assert sum(isinstance(answer, OpenSession) for answer in answers) == 1
    assert sum(isinstance(answer, SessionRevokedError) for answer in answers) == 19


async def test_a_made_up_token_of_a_known_session_harms_nothing(operations: Operations) -> None:
    session = await refreshed(operations, await operations.sign_up())
    real = parse_refresh_token(session.refresh_token)
    assert real is not None
    made_up = [
        replace(real, secret=bytes(32)),
        replace(real, secret=bytes(32), generation=0),
        replace(real, generation=0),
        replace(real, generation=2),
    ]

    for token in made_up:
        with pytest.raises(TokenInvalidError):
            await operations.sessions.refresh(token.text(), operations.request_id())

    await refreshed(operations, session)


@pytest.mark.parametrize("text", ["", "wfr_", "junk", "wfr_" + "A" * 91, "wfr_é"])
async def test_what_is_no_token_is_invalid(operations: Operations, text: str) -> None:
    with pytest.raises(TokenInvalidError):
        await operations.sessions.refresh(text, operations.request_id())


async def test_a_token_that_is_not_used_for_30_days_expires(operations: Operations) -> None:
    session = await operations.sign_up()
    operations.clock.pass_time(timedelta(days=30))

    with pytest.raises(TokenExpiredError):
        await refreshed(operations, session)


async def test_a_session_ends_after_90_days_however_often_it_is_refreshed(
    operations: Operations,
) -> None:
    session = await operations.sign_up()
    for _ in range(3):
        operations.clock.pass_time(timedelta(days=29))
        session = await refreshed(operations, session)
    assert session.refresh_token_expire_time - operations.clock.now() == timedelta(days=3)
    operations.clock.pass_time(timedelta(days=3))

    with pytest.raises(TokenExpiredError):
        await refreshed(operations, session)


async def test_a_session_goes_on_when_the_server_changes_its_key(operations: Operations) -> None:
    first = await operations.sign_up()
    operations.secrets.keys = [b"newer", b"key"]
    second = await refreshed(operations, first)
    third = await refreshed(operations, second)

    with pytest.raises(SessionRevokedError):
        await refreshed(operations, first)
    with pytest.raises(SessionRevokedError):
        await refreshed(operations, third)


async def test_a_current_token_outlives_the_key_that_made_it(operations: Operations) -> None:
    session = await operations.sign_up()
    operations.secrets.keys = [b"newer"]

    await refreshed(operations, session)


async def test_a_suspended_user_cannot_refresh(operations: Operations) -> None:
    session = await operations.sign_up()
    suspended = replace(session.user, status=UserStatus.SUSPENDED)
    operations.store.rows.users[session.user.user_id] = suspended

    with pytest.raises(AccountSuspendedError):
        await refreshed(operations, session)


async def test_logging_out_ends_one_session_or_all(operations: Operations) -> None:
    first = await operations.sign_up()
    second, third = await operations.log_in(), await operations.log_in()

    async def log_out(session: OpenSession, *, all_sessions: bool) -> int:
        actor = actor_of(session.user, session.session_id)
        return await operations.sessions.log_out(actor, all_sessions=all_sessions)

    assert await log_out(first, all_sessions=False) == 1
    assert await log_out(first, all_sessions=False) == 0
    await refreshed(operations, second)
    assert await log_out(first, all_sessions=True) == 2
    with pytest.raises(DomainError) as refusal:
        await refreshed(operations, third)
    assert refusal.value.metadata == {"cause": "LOGGED_OUT"}
