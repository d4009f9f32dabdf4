"""LedgerService: transfers, two phases, refunds and settlements, over real servers."""

import asyncio

import pytest

from tests.support.ledger_process import (
    CLEARING,
    REVENUE,
    LedgerProcess,
    minor,
    money,
    pb,
    posting,
    transfer,
    wallet,
)
from tests.support.location_values import TENANT, new_id
from wayfare.ledger.v1 import transfer_pb2

pytestmark = pytest.mark.integration


async def test_six_holds_of_a_fifth_leave_room_for_five(ledger: LedgerProcess) -> None:
    user = await ledger.person(5_000)
    holds = [transfer(wallet(user), REVENUE, 1_000, pending=True) for _ in range(6)]

    reasons = [one for (one,) in await asyncio.gather(*(ledger.create(hold) for hold in holds))]

    assert sorted(reasons) == ["", "", "", "", "", "FUNDS_INSUFFICIENT"]
    account = await ledger.account(user)
    assert (minor(account.posted), minor(account.pending_out), minor(account.available)) == (
        5_000,
        5_000,
        0,
    )


async def test_a_pending_transfer_is_posted_once_however_many_try(ledger: LedgerProcess) -> None:
    user = await ledger.person(5_000)
    hold = await ledger.hold(user, 1_000)

    async def post() -> str:
        request = pb.PostPendingRequest(
            tenant_id=TENANT, pending_transfer_id=hold, request_id=new_id()
        )
        return await ledger.reason("PostPending", request)

    results = await asyncio.gather(*(post() for _ in range(20)))

    assert results.count("") == 1
    account = await ledger.account(user)
    assert (minor(account.posted), minor(account.pending_out)) == (4_000, 0)


async def test_a_part_is_posted_and_the_rest_set_free(ledger: LedgerProcess) -> None:
    user = await ledger.person(5_000)
    hold = await ledger.hold(user, 3_000)
    request = pb.PostPendingRequest(
        tenant_id=TENANT,
        pending_transfer_id=hold,
        postings=[posting(wallet(user), -1_200), posting(REVENUE, 1_200)],
        request_id=new_id(),
    )

    posted = await ledger.call("PostPending", request)

    assert posted == await ledger.call("PostPending", request)
    assert minor(posted.amount) == 1_200
    account = await ledger.account(user)
    assert (minor(account.posted), minor(account.pending_out)) == (3_800, 0)


async def test_more_than_was_pending_is_not_posted(ledger: LedgerProcess) -> None:
    user = await ledger.person(5_000)
    hold = await ledger.hold(user, 1_000)
    request = pb.PostPendingRequest(
        tenant_id=TENANT,
        pending_transfer_id=hold,
        postings=[posting(wallet(user), -1_001), posting(REVENUE, 1_001)],
        request_id=new_id(),
    )

    refusal = await ledger.refused("PostPending", request)

    assert refusal.reason == "AMOUNT_EXCEEDS_PENDING"


async def test_a_voided_hold_is_free_and_cannot_be_posted(ledger: LedgerProcess) -> None:
    user = await ledger.person(1_000)
    hold = await ledger.hold(user, 1_000)
    void = pb.VoidPendingRequest(tenant_id=TENANT, pending_transfer_id=hold, request_id=new_id())

    await ledger.call("VoidPending", void)
    await ledger.call("VoidPending", void)

    post = pb.PostPendingRequest(tenant_id=TENANT, pending_transfer_id=hold, request_id=new_id())
    refusal = await ledger.refused("PostPending", post)
    assert (refusal.reason, refusal.metadata["phase"]) == ("PENDING_ALREADY_RESOLVED", "VOID")
    assert minor((await ledger.account(user)).available) == 1_000


async def test_a_hold_expires_by_itself_and_is_not_posted_after_its_time(
    ledger: LedgerProcess,
) -> None:
    user = await ledger.person(1_000)
    wanted = transfer(wallet(user), REVENUE, 1_000, pending=True)
    wanted.pending_timeout.FromSeconds(1)
    assert await ledger.create(wanted) == [""]

    async def is_free() -> bool:
        return minor((await ledger.account(user)).available) == 1_000

    async with asyncio.timeout(10):
        while not await is_free():
            await asyncio.sleep(0.05)
    post = pb.PostPendingRequest(
        tenant_id=TENANT, pending_transfer_id=wanted.transfer_id, request_id=new_id()
    )
    assert (await ledger.refused("PostPending", post)).reason == "PENDING_EXPIRED"


async def test_a_chain_with_one_bad_leg_leaves_nothing(ledger: LedgerProcess) -> None:
    rich, poor, other = await ledger.person(1_000), await ledger.person(10), await ledger.person()

    reasons = await ledger.create(
        transfer(wallet(rich), wallet(other), 500, linked=True),
        transfer(wallet(poor), wallet(other), 500, linked=True),
        transfer(wallet(rich), wallet(other), 100),
        transfer(wallet(rich), wallet(other), 7),
    )

    assert reasons == [
        "LINKED_TRANSFER_FAILED",
        "FUNDS_INSUFFICIENT",
        "LINKED_TRANSFER_FAILED",
        "",
    ]
    assert await ledger.balance(rich) == 993


async def test_the_same_id_is_made_once_and_refused_with_other_content(
    ledger: LedgerProcess,
) -> None:
    user = await ledger.person(1_000)
    wanted = transfer(wallet(user), REVENUE, 300)

    reasons = await asyncio.gather(*(ledger.create(wanted) for _ in range(10)))
    other = transfer(wallet(user), REVENUE, 301, transfer_id=wanted.transfer_id)

    assert reasons == [[""]] * 10
    assert await ledger.create(other) == ["TRANSFER_EXISTS_DIFFERENTLY"]
    assert await ledger.balance(user) == 700


async def test_what_does_not_balance_is_refused_alone(ledger: LedgerProcess) -> None:
    user = await ledger.person(1_000)
    unbalanced = transfer_pb2.NewTransfer(
        transfer_id=new_id(),
        kind="TEST",
        postings=[posting(wallet(user), -100), posting(REVENUE, 90)],
    )
    mixed = transfer_pb2.NewTransfer(
        transfer_id=new_id(),
        kind="TEST",
        postings=[posting(wallet(user), -100), posting(REVENUE, 100, "LKR")],
    )
    nothing = transfer_pb2.NewTransfer(
        transfer_id=new_id(), kind="TEST", postings=[posting(wallet(user), -0), posting(REVENUE, 0)]
    )

    reasons = await ledger.create(unbalanced, mixed, nothing, transfer(wallet(user), REVENUE, 100))

    assert reasons == ["POSTINGS_UNBALANCED", "CURRENCY_MISMATCH", "AMOUNT_INVALID", ""]


async def test_refunds_never_exceed_what_was_paid_however_many_at_once(
    ledger: LedgerProcess,
) -> None:
    passenger, driver = await ledger.person(10_000), new_id()
    paid = await ledger.call("SettleTrip", settlement(passenger, driver, fare=9_999))

    async def refund() -> str:
        request = pb.RefundTransferRequest(
            tenant_id=TENANT,
            transfer_id=paid.transfer_id,
            amount=money(2_000),
            request_id=new_id(),
        )
        return await ledger.reason("RefundTransfer", request)

    results = await asyncio.gather(*(refund() for _ in range(12)))
    rest = pb.RefundTransferRequest(
        tenant_id=TENANT, transfer_id=paid.transfer_id, request_id=new_id()
    )
    last = await ledger.call("RefundTransfer", rest)

    assert results.count("") == 4
    assert minor(last.amount) == 1_999
    assert await ledger.balance(passenger) == 10_000
    assert await ledger.balance(driver) == 0


async def test_the_operator_may_bear_a_refund(ledger: LedgerProcess) -> None:
    passenger, driver = await ledger.person(10_000), new_id()
    paid = await ledger.call("SettleTrip", settlement(passenger, driver, fare=4_000))
    request = pb.RefundTransferRequest(
        tenant_id=TENANT,
        transfer_id=paid.transfer_id,
        borne_by_operator=True,
        request_id=new_id(),
    )

    await ledger.call("RefundTransfer", request)

    assert await ledger.balance(passenger) == 10_000
    assert await ledger.balance(driver) == 3_400


async def test_a_trip_is_settled_once(ledger: LedgerProcess) -> None:
    passenger, driver = await ledger.person(10_000), new_id()
    request = settlement(passenger, driver, fare=5_001, tip=500)

    first = await ledger.call("SettleTrip", request)
    request.request_id = new_id()
    again = await ledger.call("SettleTrip", request)

    assert first == again
    assert await ledger.balance(passenger) == 10_000 - 5_501
    assert await ledger.balance(driver) == 5_001 - 750 + 500
    request.fare.CopyFrom(money(5_002))
    assert (await ledger.refused("SettleTrip", request)).reason == "TRIP_ALREADY_SETTLED"


async def test_a_driver_owes_the_commission_of_a_cash_trip(ledger: LedgerProcess) -> None:
    passenger, driver = await ledger.person(), new_id()

    await ledger.call(
        "SettleTrip", settlement(passenger, driver, fare=5_000, method=pb.PAYMENT_METHOD_CASH)
    )

    assert await ledger.balance(driver) == -750


async def test_a_held_fare_is_posted_by_the_settlement(ledger: LedgerProcess) -> None:
    passenger, driver = await ledger.person(10_000), new_id()
    held = transfer_pb2.NewTransfer(
        transfer_id=new_id(),
        kind="TRIP_FARE",
        pending=True,
        postings=[
            posting(wallet(passenger), -6_000),
            posting(wallet(driver), 5_100),
            posting(REVENUE, 900),
        ],
    )
    assert await ledger.create(held) == [""]
    request = settlement(passenger, driver, fare=5_000)
    request.pending_transfer_id = held.transfer_id

    await ledger.call("SettleTrip", request)

    account = await ledger.account(passenger)
    assert (minor(account.posted), minor(account.pending_out)) == (5_000, 0)
    assert await ledger.balance(driver) == 4_250


async def test_a_statement_says_the_balance_after_each_entry(ledger: LedgerProcess) -> None:
    user = await ledger.person(1_000)
    for amount in (100, 200, 300):
        assert await ledger.create(transfer(wallet(user), REVENUE, amount)) == [""]

    first = await ledger.entries(user, page_size=3)
    assert await ledger.create(transfer(CLEARING, wallet(user), 50)) == [""]
    second = await ledger.entries(user, page_size=3, page_token=first.next_page_token)

    lines = [(minor(one.amount), minor(one.balance)) for one in [*first.entries, *second.entries]]
    assert lines == [(-300, 400), (-200, 700), (-100, 900), (1_000, 1_000)]
    assert second.next_page_token == ""


async def test_a_limit_is_changed_while_money_moves(ledger: LedgerProcess) -> None:
    user = await ledger.person(1_000)
    account = await ledger.account(user)
    account.limit.CopyFrom(money(-500))
    admin = ledger.bearer("ADMIN", new_id())
    request = pb.UpdateAccountRequest(account=account)
    request.update_mask.paths.append("limit")

    changed = await ledger.call("UpdateAccount", request, admin)

    assert minor(changed.available) == 1_500
    assert await ledger.create(transfer(wallet(user), REVENUE, 1_500)) == [""]
    assert await ledger.create(transfer(wallet(user), REVENUE, 1)) == ["FUNDS_INSUFFICIENT"]
    request.account.limit.CopyFrom(money(0))
    assert (await ledger.refused("UpdateAccount", request, admin)).reason == "LIMIT_ABOVE_BALANCE"


async def test_nothing_is_taken_from_a_blocked_wallet(ledger: LedgerProcess) -> None:
    user = await ledger.person(1_000)
    account = await ledger.account(user)
    account.blocked = True
    request = pb.UpdateAccountRequest(account=account)
    request.update_mask.paths.append("blocked")
    await ledger.call("UpdateAccount", request, ledger.bearer("ADMIN", new_id()))

    reasons = await ledger.create(
        transfer(wallet(user), REVENUE, 1), transfer(CLEARING, wallet(user), 1)
    )

    assert reasons == ["ACCOUNT_BLOCKED", ""]


async def test_a_person_sees_their_own_wallet_and_no_other(ledger: LedgerProcess) -> None:
    user, other = await ledger.person(1_000), await ledger.person(2_000)
    own = ledger.bearer("PASSENGER", user)
    moved = transfer(wallet(other), REVENUE, 5)
    assert await ledger.create(moved) == [""]

    mine = await ledger.call("GetBalance", pb.GetBalanceRequest(), own)
    refusals = [
        await ledger.refused("GetBalance", pb.GetBalanceRequest(user_id=other), own),
        await ledger.refused(
            "ListEntries",
            pb.ListEntriesRequest(account=wallet(other), currency_code="EGP"),
            own,
        ),
        await ledger.refused(
            "GetTransfer", pb.GetTransferRequest(transfer_id=moved.transfer_id), own
        ),
    ]

    assert [minor(one.posted) for one in mine.wallets] == [1_000]
    assert [one.reason for one in refusals] == [
        "ROLE_NOT_ALLOWED",
        "ROLE_NOT_ALLOWED",
        "TRANSFER_UNKNOWN",
    ]


async def test_the_operators_accounts_have_balances_too(ledger: LedgerProcess) -> None:
    user = await ledger.person(1_000)
    assert await ledger.create(transfer(wallet(user), REVENUE, 400)) == [""]
    request = pb.ListEntriesRequest(account=REVENUE, currency_code="EGP")

    page = await ledger.call("ListEntries", request, ledger.bearer("BUSINESS", new_id()))

    assert [(minor(one.amount), minor(one.balance)) for one in page.entries] == [(400, 400)]


def settlement(
    passenger: str,
    driver: str,
    *,
    fare: int,
    tip: int = 0,
    method: "pb.PaymentMethod.ValueType" = pb.PAYMENT_METHOD_WALLET,
) -> pb.SettleTripRequest:
    request = pb.SettleTripRequest(
        tenant_id=TENANT,
        trip_id=new_id(),
        passenger_user_id=passenger,
        driver_user_id=driver,
        method=method,
        fare=money(fare),
        commission_basis_points=1_500,
        request_id=new_id(),
    )
    if tip:
        request.tip.CopyFrom(money(tip))
    return request
