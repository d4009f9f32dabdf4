"""Withdrawals over real servers: requested, decided, paid out by a bridge on loopback, once."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.ledger.domain.accounts import derived_id
from tests.support.identity_process import refusal_of
from tests.support.ledger_desk import Desk, State, approval, desk_of, rejection, wanted
from tests.support.ledger_process import (
    minor,
    money,
    pb,
    posting,
    transfer,
    wallet,
)
from tests.support.location_values import TENANT, new_id
from tests.support.payout_bridge import Behaviour, PayoutBridge, running_bridge
from tests.support.stack_fixtures import TestDatabase
from wayfare.ledger.v1 import account_pb2

pytestmark = pytest.mark.integration

WITHDRAWALS = account_pb2.AccountName(kind=account_pb2.ACCOUNT_KIND_WITHDRAWALS)


@pytest.fixture
def bridge() -> Iterator[PayoutBridge]:
    with running_bridge() as running:
        yield running


@pytest.fixture
async def desk(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path, bridge: PayoutBridge
) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await desk_of(
            stack, migrated_database, valkey_url, short_folder, 1, **bridge.settings
        )


@pytest.fixture
async def two_desks(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path, bridge: PayoutBridge
) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await desk_of(
            stack, migrated_database, valkey_url, short_folder, 2, **bridge.settings
        )


async def test_a_request_holds_the_amount_once(desk: Desk) -> None:
    user = await desk.ledger.person(5_000)
    request = wanted(3_000)

    answers = await asyncio.gather(
        *(desk.ledger.call("RequestWithdrawal", request, desk.person(user)) for _ in range(8))
    )

    assert all(one == answers[0] for one in answers)
    assert answers[0].state == State.WITHDRAWAL_STATE_REQUESTED
    account = await desk.ledger.account(user)
    assert (minor(account.posted), minor(account.pending_out)) == (5_000, 3_000)
    assert await desk.told(answers[0].withdrawal_id) == [(1, "REQUESTED")]
    request.amount.CopyFrom(money(2_999))
    refusal = await desk.ledger.refused("RequestWithdrawal", request, desk.person(user))
    assert refusal.reason == "REQUEST_ID_REUSED"


async def test_what_cannot_be_paid_out_is_refused_with_its_reason(desk: Desk) -> None:
    rich, poor, blocked = [await desk.ledger.person(amount) for amount in (9_000, 1_500, 9_000)]
    await desk.block(blocked)
    cases = [
        (rich, wanted(999), "AMOUNT_INVALID"),
        (rich, wanted(-5_000), "AMOUNT_INVALID"),
        (poor, wanted(1_501), "FUNDS_INSUFFICIENT"),
        (rich, wanted(1_500, currency_code="LKR"), "FUNDS_INSUFFICIENT"),
        (blocked, wanted(1_500), "ACCOUNT_BLOCKED"),
        (rich, wanted(1_500, destination="4111 1111 1111 1111"), "REQUEST_INVALID"),
    ]

    reasons = [
        (await desk.ledger.refused("RequestWithdrawal", request, desk.person(user))).reason
        for user, request, _ in cases
    ]

    assert reasons == [reason for _, _, reason in cases]
    assert await desk.listed() == []


async def test_an_approved_withdrawal_is_paid_and_posted(desk: Desk, bridge: PayoutBridge) -> None:
    user = await desk.ledger.person(5_000)
    requested = await desk.request(user, 3_000)

    approved = await desk.approve(requested.withdrawal_id)
    paid = await desk.becomes(user, State.WITHDRAWAL_STATE_PAID)

    assert approved.decided_by_user_id
    assert paid.payout_id == "po-0"
    assert bridge.book.money_moves == {requested.withdrawal_id: 1}
    account = await desk.ledger.account(user)
    assert (minor(account.posted), minor(account.pending_out)) == (2_000, 0)
    assert await desk.told(requested.withdrawal_id) == [
        (1, "REQUESTED"),
        (2, "APPROVED"),
        (3, "PAID"),
    ]


async def test_a_rejected_withdrawal_is_free_again_and_stays_rejected(desk: Desk) -> None:
    user = await desk.ledger.person(5_000)
    requested = await desk.request(user, 3_000)
    request = rejection(requested.withdrawal_id)

    rejected = await desk.ledger.call("RejectWithdrawal", request, desk.admin)

    assert (rejected.state, rejected.reason) == (State.WITHDRAWAL_STATE_REJECTED, "no papers")
    assert minor((await desk.ledger.account(user)).available) == 5_000
    assert await desk.ledger.call("RejectWithdrawal", request, desk.admin) == rejected
    assert await desk.reject(requested.withdrawal_id) == rejected
    late = await desk.ledger.refused(
        "ApproveWithdrawal", approval(requested.withdrawal_id), desk.admin
    )
    assert (late.reason, late.metadata["state"]) == ("WITHDRAWAL_ALREADY_DECIDED", "REJECTED")


async def test_one_key_with_two_bodies_is_refused(desk: Desk) -> None:
    users = [await desk.ledger.person(5_000) for _ in range(2)]
    first, second = [(await desk.request(user, 3_000)).withdrawal_id for user in users]
    key = new_id()
    await desk.reject(first, request_id=key)

    refusals = [
        await desk.ledger.refused(
            "RejectWithdrawal", rejection(second, request_id=key), desk.admin
        ),
        await desk.ledger.refused("ApproveWithdrawal", approval(first, request_id=key), desk.admin),
        await desk.ledger.refused(
            "RejectWithdrawal", rejection(first, request_id=key, reason="another"), desk.admin
        ),
    ]

    assert [one.reason for one in refusals] == ["REQUEST_ID_REUSED"] * 3


async def test_of_many_who_decide_at_once_one_wins(two_desks: Desk, bridge: PayoutBridge) -> None:
    desk = two_desks
    user = await desk.ledger.person(5_000)
    withdrawal_id = (await desk.request(user, 3_000)).withdrawal_id

    async def decide(index: int) -> str:
        process = desk.processes[index % 2]
        approves = index % 4 < 2
        method = "ApproveWithdrawal" if approves else "RejectWithdrawal"
        request = approval(withdrawal_id) if approves else rejection(withdrawal_id)
        admin = process.bearer("ADMIN", new_id())
        try:
            await process.call(method, request, admin)
        except grpc.aio.AioRpcError as error:
            return refusal_of(error).reason
        return method

    results = await asyncio.gather(*map(decide, range(20)))

    # Those who approve late, when it is paid already, are told so.
    assert results.count("WITHDRAWAL_ALREADY_DECIDED") >= 10
    (winner,) = set(results) - {"WITHDRAWAL_ALREADY_DECIDED"}
    approved = winner == "ApproveWithdrawal"
    end = State.WITHDRAWAL_STATE_PAID if approved else State.WITHDRAWAL_STATE_REJECTED
    await desk.becomes(user, end)
    states = [state for _, state in await desk.told(withdrawal_id)]
    assert states == (["REQUESTED", "APPROVED", "PAID"] if approved else ["REQUESTED", "REJECTED"])
    assert await desk.ledger.balance(user) == (2_000 if approved else 5_000)
    assert sum(bridge.book.money_moves.values()) == approved


async def test_two_processes_ask_to_pay_each_withdrawal_once(
    two_desks: Desk, bridge: PayoutBridge
) -> None:
    desk = two_desks
    users = await asyncio.gather(*(desk.ledger.person(5_000) for _ in range(24)))
    requested = await asyncio.gather(*(desk.request(user, 1_000) for user in users))

    await asyncio.gather(*(desk.approve(one.withdrawal_id) for one in requested))
    for user in users:
        await desk.becomes(user, State.WITHDRAWAL_STATE_PAID)

    once = {one.withdrawal_id: 1 for one in requested}
    assert bridge.book.creates == once
    assert bridge.book.money_moves == once
    assert [await desk.ledger.balance(user) for user in users] == [4_000] * 24


@pytest.mark.parametrize(
    ("behaviour", "creates"),
    [
        (Behaviour.PAYS_LATER, 1),
        (Behaviour.ANSWERS_LATE, 1),
        (Behaviour.DROPS_AFTER_ACCEPTING, 1),
        (Behaviour.DROPS_BEFORE_ACCEPTING, 2),
        (Behaviour.BREAKS_ONCE, 2),
    ],
)
async def test_an_unknown_outcome_is_asked_about_and_paid_once(
    desk: Desk, bridge: PayoutBridge, behaviour: Behaviour, creates: int
) -> None:
    user = await desk.ledger.person(5_000)
    requested = await desk.request(user, 3_000, behaviour)

    await desk.approve(requested.withdrawal_id)
    await desk.becomes(user, State.WITHDRAWAL_STATE_PAID)

    assert bridge.book.creates == {requested.withdrawal_id: creates}
    assert bridge.book.finds[requested.withdrawal_id] >= 1
    assert bridge.book.money_moves == {requested.withdrawal_id: 1}
    assert await desk.ledger.balance(user) == 2_000


async def test_what_the_provider_refuses_for_good_is_free_again(desk: Desk) -> None:
    user = await desk.ledger.person(5_000)
    requested = await desk.request(user, 3_000, Behaviour.REFUSES)

    await desk.approve(requested.withdrawal_id)
    failed = await desk.becomes(user, State.WITHDRAWAL_STATE_FAILED)

    assert failed.reason == "the account is closed"
    assert minor((await desk.ledger.account(user)).available) == 5_000


async def test_an_answer_about_another_amount_is_never_taken(
    desk: Desk, bridge: PayoutBridge
) -> None:
    user = await desk.ledger.person(5_000)
    requested = await desk.request(user, 3_000, Behaviour.TELLS_ANOTHER_AMOUNT)
    await desk.approve(requested.withdrawal_id)

    async with asyncio.timeout(20):
        while bridge.book.finds[requested.withdrawal_id] < 2:
            await asyncio.sleep(0.02)

    (found,) = await desk.listed(user_id=user)
    account = await desk.ledger.account(user)
    assert found.state == State.WITHDRAWAL_STATE_APPROVED
    assert (minor(account.posted), minor(account.pending_out)) == (5_000, 3_000)


async def test_a_process_that_died_while_paying_is_followed_by_one_that_asks(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path, bridge: PayoutBridge
) -> None:
    values = {
        **bridge.settings,
        "ledger_payout_timeout_seconds": 20,
        "ledger_payout_lease_seconds": 1,
    }
    where = (migrated_database, valkey_url, short_folder)
    async with AsyncExitStack() as stack:
        desk = await desk_of(stack, *where, 1, **values)
        user = await desk.ledger.person(5_000)
        requested = await desk.request(user, 3_000, Behaviour.ANSWERS_LATE)
        await desk.approve(requested.withdrawal_id)
        async with asyncio.timeout(20):
            while not bridge.book.money_moves:
                await asyncio.sleep(0.01)
    async with AsyncExitStack() as stack:
        desk = await desk_of(stack, *where, 1, **bridge.settings)
        await desk.becomes(user, State.WITHDRAWAL_STATE_PAID)

        assert bridge.book.creates == {requested.withdrawal_id: 1}
        assert await desk.ledger.balance(user) == 2_000


async def test_without_a_provider_what_is_approved_waits_and_is_seen(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path, bridge: PayoutBridge
) -> None:
    where = (migrated_database, valkey_url, short_folder)
    async with AsyncExitStack() as stack:
        desk = await desk_of(stack, *where, 1, ledger_payout_idle_seconds=0.02)
        user = await desk.ledger.person(5_000)
        approved = await desk.approve((await desk.request(user, 3_000)).withdrawal_id)
        other = await desk.ledger.person(5_000)
        await desk.reject((await desk.request(other, 1_000)).withdrawal_id)

        assert await desk.listed(state=State.WITHDRAWAL_STATE_APPROVED) == [approved]
        assert minor((await desk.ledger.account(user)).pending_out) == 3_000
    async with AsyncExitStack() as stack:
        desk = await desk_of(stack, *where, 1, **bridge.settings)
        await desk.becomes(user, State.WITHDRAWAL_STATE_PAID)


async def test_a_request_whose_process_died_is_ended_by_another(desk: Desk) -> None:
    user = await desk.ledger.person(5_000)
    requested = await desk.request(user, 1_000)
    lost, hold = new_id(), new_id()
    postings = [posting(wallet(user), -2_000), posting(WITHDRAWALS, 2_000)]
    held = transfer(
        wallet(user), WITHDRAWALS, 2_000, transfer_id=hold, pending=True, postings=postings
    )
    assert await desk.ledger.create(held) == [""]

    await desk.execute(
        "INSERT INTO ledger.withdrawals SELECT $1, tenant_id, user_id, currency_code, 2000,"
        " payout_destination, $2, body_hash, 'HOLDING', NULL, '', NULL, NULL, NULL, '', NULL, 0,"
        " now(), 0, create_time, update_time FROM ledger.withdrawals WHERE withdrawal_id = $3",
        *(lost, hold, requested.withdrawal_id),
    )

    async with asyncio.timeout(20):
        while len(found := await desk.listed(user_id=user)) < 2:
            await asyncio.sleep(0.02)
    assert {one.withdrawal_id for one in found} == {lost, requested.withdrawal_id}
    assert await desk.told(lost) == [(1, "REQUESTED")]


async def test_nobody_approves_their_own_or_that_of_a_blocked_wallet(desk: Desk) -> None:
    user = await desk.ledger.person(5_000)
    withdrawal_id = (await desk.request(user, 3_000)).withdrawal_id

    own = await desk.ledger.refused(
        "ApproveWithdrawal", approval(withdrawal_id), desk.ledger.bearer("ADMIN", user)
    )
    await desk.block(user)
    blocked = await desk.ledger.refused("ApproveWithdrawal", approval(withdrawal_id), desk.admin)
    unknown = await desk.ledger.refused("ApproveWithdrawal", approval(new_id()), desk.admin)
    rejected = await desk.reject(withdrawal_id)

    assert [own.reason, blocked.reason, unknown.reason] == [
        "ROLE_NOT_ALLOWED",
        "ACCOUNT_BLOCKED",
        "WITHDRAWAL_UNKNOWN",
    ]
    assert rejected.state == State.WITHDRAWAL_STATE_REJECTED


async def test_a_list_goes_on_where_it_ended_and_only_with_its_filters(desk: Desk) -> None:
    user, other = await desk.ledger.person(9_000), await desk.ledger.person(9_000)
    made = [(await desk.request(user, 1_000 + number)).withdrawal_id for number in range(5)]
    await desk.request(other, 1_000)
    mine = desk.person(user)

    async def page(metadata: Any, **values: Any) -> Any:
        request = pb.ListWithdrawalsRequest(page_size=2, **values)
        return await desk.ledger.call("ListWithdrawals", request, metadata)

    first = await page(mine)
    second = await page(mine, page_token=first.next_page_token)
    third = await page(mine, page_token=second.next_page_token)

    found = [
        one.withdrawal_id for one in [*first.withdrawals, *second.withdrawals, *third.withdrawals]
    ]
    assert (found, third.next_page_token) == (made[::-1], "")
    for metadata, state in [
        (mine, State.WITHDRAWAL_STATE_PAID),
        (desk.admin, State.WITHDRAWAL_STATE_UNSPECIFIED),
        (desk.person(other), State.WITHDRAWAL_STATE_UNSPECIFIED),
    ]:
        request = pb.ListWithdrawalsRequest(page_token=first.next_page_token, state=state)
        refusal = await desk.ledger.refused("ListWithdrawals", request, metadata)
        assert refusal.reason == "PAGE_TOKEN_INVALID"
    assert len(await desk.listed()) == 6
    foreign = await desk.ledger.refused(
        "ListWithdrawals", pb.ListWithdrawalsRequest(user_id=other), mine
    )
    assert foreign.reason == "ROLE_NOT_ALLOWED"


async def test_a_withdrawals_id_follows_from_its_request(desk: Desk) -> None:
    user, key = await desk.ledger.person(5_000), new_id()

    requested = await desk.request(user, 1_000, request_id=key)

    assert requested.withdrawal_id == derived_id("RequestWithdrawal", TENANT, user, key)
