"""The rules of accounts and refreshes, for any account and any order of events."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.identity.domain import (
    Phone,
    Refresh,
    RequestId,
    Role,
    SessionId,
    StoredSession,
    TenantId,
    User,
    UserChange,
    UserId,
    UserStatus,
    approve,
    changed,
    coerced_page_size,
    decide_refresh,
    status_for,
)
from services.shared.errors import DomainError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WINDOW = timedelta(minutes=5)
changes = st.builds(
    UserChange,
    display_name=st.none() | st.text(min_size=1, max_size=5),
    role=st.none() | st.sampled_from(Role),
    status=st.none() | st.sampled_from(UserStatus),
)


@given(
    role=st.sampled_from(Role),
    steps=st.lists(changes | st.just("approve"), max_size=12),
)
def test_no_order_of_changes_makes_an_unapproved_driver_active(
    role: Role, steps: list[UserChange | str]
) -> None:
    user = User(
        user_id=UserId("user"),
        tenant_id=TenantId("tenant"),
        phone=Phone("+441514960123"),
        display_name="Ada",
        role=role,
        status=status_for(role, approved=False),
        create_time=NOW,
        update_time=NOW,
    )
    for step in steps:
        before = user
        try:
            user = approve(user, now=NOW) if isinstance(step, str) else changed(user, step, now=NOW)
        except DomainError:
            assert user == before
        unapproved_driver = user.role is Role.DRIVER and user.approve_time is None
        assert not (unapproved_driver and user.status is UserStatus.ACTIVE)
        assert user.status is not UserStatus.PENDING or unapproved_driver


@given(
    steps=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 10)), max_size=20)
)
def test_whatever_the_order_of_refreshes_one_generation_rotates_once(
    steps: list[tuple[int, int, int]],
) -> None:
    session = StoredSession(
        session_id=SessionId("session"),
        tenant_id=TenantId("tenant"),
        user_id=UserId("user"),
        token_seed=b"",
        generation=0,
        token_hash=b"",
        token_expire_time=NOW + timedelta(days=30),
        create_time=NOW,
        expire_time=NOW + timedelta(days=90),
    )
    now = NOW
    rotated: list[int] = []
    for age, request_number, minutes in steps:
        now += timedelta(minutes=minutes)
        generation = max(session.generation - age, 0)
        request_id = RequestId(str(request_number))
        outcome = decide_refresh(
            session, generation, request_id=request_id, now=now, replay_window=WINDOW
        )
        if outcome is Refresh.ROTATE:
            rotated.append(generation)
            session = replace(
                session,
                generation=generation + 1,
                rotate_time=now,
                rotate_request_id=request_id,
            )
        if outcome is Refresh.REPLAY:
            assert generation == session.generation - 1
        if outcome is Refresh.REUSE:
            assert generation < session.generation
            session = replace(session, revoke_time=now)
        if session.revoke_time is not None:
            again = decide_refresh(
                session, session.generation, request_id=request_id, now=now, replay_window=WINDOW
            )
            assert again is Refresh.REVOKED
    assert rotated == sorted(set(rotated))


@given(st.integers(-(2**31), 2**31 - 1))
def test_a_page_size_is_always_usable(asked: int) -> None:
    assert 1 <= coerced_page_size(asked) <= 500
