"""What clients of the ledger do in a simulation; each is one function that returns a Flow."""

from typing import Any

from services.ledger.domain.accounts import AccountKey, AccountKind
from services.ledger.domain.reconciliation import ExpectedPayment
from services.ledger.domain.settlement import PaymentMethod, Settlement
from services.ledger.domain.sharing import commission_of
from services.ledger.domain.transfers import Phase, Posting, WantedTransfer
from services.ledger.operations.transfers import Refund
from tests.support.ledger_parts import LedgerParts
from tests.support.ledger_simulation import HOLD, Flow, Simulation

CODE = "EGP"
REVENUE = AccountKey(AccountKind.REVENUE, "", CODE)
FLOAT = AccountKey(AccountKind.CASH_FLOAT, "", CODE)
COMMISSION_BASIS_POINTS = 1_500


def wallet(user_id: str, code: str = CODE) -> AccountKey:
    """Return a person's wallet."""
    return AccountKey(AccountKind.WALLET, user_id, code)


def wanted(
    simulation: Simulation, source: AccountKey, target: AccountKey, amount: int, **values: Any
) -> WantedTransfer:
    """Return a transfer with an id that stays the same, however often it is asked for."""
    transfer_id = simulation.new_id()
    return WantedTransfer(
        **{
            "transfer_id": transfer_id,
            "phase": Phase.POSTED,
            "kind": "TEST",
            "currency_code": CODE,
            "postings": [
                Posting(source.account_id(simulation.tenant_id), source, -amount),
                Posting(target.account_id(simulation.tenant_id), target, amount),
            ],
            "body_hash": bytes.fromhex(transfer_id.replace("-", "")),
            **values,
        }
    )


def pay(simulation: Simulation, user_id: str, amount: int, code: str = CODE) -> tuple[Flow, str]:
    """Pay the operator; return the flow, and the id of the payment."""
    revenue = REVENUE._replace(currency_code=code)
    payment = wanted(simulation, wallet(user_id, code), revenue, amount, currency_code=code)

    async def talk(parts: LedgerParts) -> None:
        assert await parts.transfers.create(simulation.tenant_id, [payment]) == [None]

    moves = {wallet(user_id, code): -amount, revenue: amount}
    return Flow(name="pay", talk=talk, moves=moves, transfer_count=1), payment.transfer_id


def fund(simulation: Simulation, user_id: str, amount: int) -> Flow:
    """Put money into a wallet, in cash at a counter."""
    transfer = wanted(simulation, FLOAT, wallet(user_id), amount)

    async def talk(parts: LedgerParts) -> None:
        assert await parts.transfers.create(simulation.tenant_id, [transfer]) == [None]

    moves = {FLOAT: -amount, wallet(user_id): amount}
    return Flow(name="fund", talk=talk, moves=moves, transfer_count=1)


def settle(
    simulation: Simulation,
    passenger: str,
    driver: str,
    price: int,
    method: PaymentMethod = PaymentMethod.WALLET,
) -> Flow:
    """Settle a trip: from the wallet, or in cash of which the driver owes the commission."""
    settlement = _settlement(simulation, passenger, driver, price, method=method)
    commission = commission_of(price, COMMISSION_BASIS_POINTS)
    if method is PaymentMethod.CASH:
        moves = {wallet(driver): -commission, REVENUE: commission}
    else:
        moves = {wallet(passenger): -price, wallet(driver): price - commission, REVENUE: commission}

    async def talk(parts: LedgerParts) -> None:
        await parts.transfers.settle(settlement)

    return Flow(
        name=f"settle {method}",
        talk=talk,
        moves=moves,
        transfer_count=1,
        trip=_completed(simulation, settlement),
    )


def settle_held(simulation: Simulation, passenger: str, driver: str, price: int) -> Flow:
    """Hold the fare when a trip is booked, and settle it from the hold when it ends."""
    commission = commission_of(price, COMMISSION_BASIS_POINTS)
    trip_id = simulation.new_id()
    passenger_key, driver_key = wallet(passenger), wallet(driver)
    amounts = ((passenger_key, -price), (driver_key, price - commission), (REVENUE, commission))
    hold = wanted(
        simulation,
        passenger_key,
        REVENUE,
        price,
        phase=Phase.PENDING,
        timeout=HOLD,
        reference=f"trip/{trip_id}",
        postings=[
            Posting(key.account_id(simulation.tenant_id), key, amount)
            for key, amount in amounts
            if amount
        ],
    )
    settlement = _settlement(
        simulation, passenger, driver, price, pending_id=hold.transfer_id, trip_id=trip_id
    )

    async def talk(parts: LedgerParts) -> None:
        assert await parts.transfers.create(simulation.tenant_id, [hold]) == [None]
        await parts.transfers.settle(settlement)

    return Flow(
        name="settle held",
        talk=talk,
        moves=dict(amounts),
        transfer_count=2,
        trip=_completed(simulation, settlement),
    )


def two_phases(simulation: Simulation, user_id: str, held: int, posted: int) -> Flow:
    """Hold an amount, then post a part of it, or void it when `posted` is 0."""
    hold = wanted(simulation, wallet(user_id), REVENUE, held, phase=Phase.PENDING, timeout=HOLD)
    part = wanted(simulation, wallet(user_id), REVENUE, posted).postings
    request_id, tenant_id = simulation.new_id(), simulation.tenant_id

    async def talk(parts: LedgerParts) -> None:
        assert await parts.transfers.create(tenant_id, [hold]) == [None]
        if posted:
            await parts.transfers.post_pending(
                tenant_id, hold.transfer_id, part, request_id=request_id
            )
        else:
            await parts.transfers.void_pending(tenant_id, hold.transfer_id, request_id=request_id)

    moves = {wallet(user_id): -posted, REVENUE: posted}
    return Flow(name="two phases", talk=talk, moves=moves, transfer_count=2)


def expire(simulation: Simulation, user_id: str, held: int) -> Flow:
    """Hold an amount and forget it: it is free again when its time is over."""
    hold = wanted(simulation, wallet(user_id), REVENUE, held, phase=Phase.PENDING, timeout=HOLD)

    async def talk(parts: LedgerParts) -> None:
        assert await parts.transfers.create(simulation.tenant_id, [hold]) == [None]

    return Flow(name="expire", talk=talk, moves={}, transfer_count=2, passing=HOLD)


def refund(simulation: Simulation, passenger: str, payment_id: str, back: int) -> Flow:
    """Give back a part of a payment; the operator bears it."""
    request_id = simulation.new_id()
    wanted_back = Refund(
        transfer_id=payment_id, amount_minor=back, currency_code=CODE, borne_by_operator=True
    )

    async def talk(parts: LedgerParts) -> None:
        await parts.transfers.refund(simulation.tenant_id, wanted_back, request_id=request_id)

    moves = {wallet(passenger): back, REVENUE: -back}
    return Flow(name="refund", talk=talk, moves=moves, transfer_count=1)


def _completed(simulation: Simulation, settlement: Settlement) -> ExpectedPayment:
    return ExpectedPayment(
        tenant_id=settlement.tenant_id,
        trip_id=settlement.trip_id,
        passenger_id=settlement.passenger_id,
        payment_reference=f"trip/{settlement.trip_id}",
        currency_code=settlement.currency_code,
        amount_minor=settlement.price_minor,
        complete_time=simulation.clock.now(),
    )


def _settlement(
    simulation: Simulation,
    passenger: str,
    driver: str,
    price: int,
    *,
    method: PaymentMethod = PaymentMethod.WALLET,
    pending_id: str = "",
    trip_id: str = "",
) -> Settlement:
    return Settlement(
        tenant_id=simulation.tenant_id,
        trip_id=trip_id or simulation.new_id(),
        passenger_id=passenger,
        driver_id=driver,
        method=method,
        currency_code=CODE,
        price_minor=price,
        tip_minor=0,
        cancelled=False,
        commission_basis_points=COMMISSION_BASIS_POINTS,
        pending_id=pending_id,
        request_id=simulation.new_id(),
    )
