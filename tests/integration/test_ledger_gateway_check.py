"""What gateways say they took, against what the ledger has: clean deposits, and planted faults."""

from typing import Any

import pytest

from services.stack.payment_gateways import Payment
from tests.support.identity_process import Refusal
from tests.support.ledger_deposits import KASHIER, PAYHERE, Teller
from tests.support.ledger_process import money
from tests.support.ledger_reconciling import ALL, GATEWAY, found_in, reconcile
from tests.support.ledger_tampering import tampering
from wayfare.ledger.v1 import audit_pb2, deposit_pb2

pytestmark = pytest.mark.integration


def line(
    deposit: deposit_pb2.Deposit, amount_minor: int = 10_000, **values: Any
) -> audit_pb2.GatewayStatementLine:
    """Return what the gateway's own report says of a deposit."""
    return audit_pb2.GatewayStatementLine(
        **{
            "gateway": deposit.gateway,
            "gateway_payment_id": f"TX-{deposit.deposit_id[:8]}",
            "deposit_id": deposit.deposit_id,
            "amount": money(amount_minor, deposit.amount.currency_code),
            **values,
        }
    )


async def test_deposits_of_every_end_agree_with_their_gateways(teller: Teller) -> None:
    paid, charged_back = await teller.deposit(PAYHERE), await teller.deposit(PAYHERE)
    failed, late = await teller.deposit(KASHIER), await teller.deposit(KASHIER)
    await teller.deposit(KASHIER)
    for _ in range(2):
        await teller.tell(paid)
    await teller.tell(charged_back)
    await teller.tell(charged_back, Payment.CHARGED_BACK)
    await teller.tell(failed, Payment.FAILED)
    await teller.tell(late, Payment.FAILED)
    await teller.tell(late)

    report = await reconcile(
        teller.ledger,
        ALL,
        gateway_lines=[
            line(paid),
            line(charged_back),
            line(charged_back, -10_000),
            line(late, 4_000),
            line(late, 6_000),
        ],
    )

    assert found_in(report) == {}


async def test_what_a_gateway_took_and_the_ledger_has_not_is_named(teller: Teller) -> None:
    twice, wrong = await teller.deposit(KASHIER), await teller.deposit(KASHIER)
    await teller.tell(twice)
    await teller.tell(twice, payment_id="TX-another")
    refusal: Refusal = await teller.refused(teller.post(wrong, amount="70.00"))
    assert refusal.reason == "AMOUNT_MISMATCH"

    report = await reconcile(teller.ledger, GATEWAY)

    assert found_in(report) == {
        f"deposit/{one.deposit_id}": ["the ledger has not what the gateway says that it took"]
        for one in (twice, wrong)
    }
    amounts = {one.subject: (one.found, one.expected) for one in report.discrepancies}
    assert amounts[f"deposit/{twice.deposit_id}"] == (money(10_000), money(20_000))
    assert amounts[f"deposit/{wrong.deposit_id}"] == (money(0), money(7_000))


async def test_what_is_changed_behind_the_service_is_named(teller: Teller) -> None:
    forgotten, invented = await teller.deposit(KASHIER), await teller.deposit(KASHIER)
    removed, stuck = await teller.deposit(KASHIER), await teller.deposit(KASHIER)
    for one in (forgotten, invented, removed):
        await teller.tell(one)
    async with tampering(teller.database) as connection:
        for statement, one in (
            ("DELETE FROM ledger.payment_webhooks WHERE deposit_id = $1", forgotten),
            ("DELETE FROM ledger.deposits WHERE deposit_id = $1", invented),
            (
                (
                    "DELETE FROM ledger.entries WHERE transfer_id ="
                    " (SELECT transfer_id FROM ledger.deposits WHERE deposit_id = $1)"
                ),
                removed,
            ),
            (
                (
                    "UPDATE ledger.deposits SET state = 'SUCCEEDED', payment_id = 'TX-1',"
                    " transfer_id = gen_random_uuid() WHERE deposit_id = $1"
                ),
                stuck,
            ),
        ):
            await connection.execute(statement, one.deposit_id)
        transfer_id = (await teller.now(removed)).transfer_id
        invented_transfer = await connection.fetchval(
            "SELECT transfer_id::text FROM ledger.transfers WHERE reference = $1",
            f"deposit/{invented.deposit_id}",
        )
    assert transfer_id

    found = found_in(await reconcile(teller.ledger, GATEWAY))

    assert found == {
        f"deposit/{forgotten.deposit_id}": [
            "the ledger has not what the gateway says that it took"
        ],
        f"transfer/{invented_transfer}": ["money comes from KASHIER without a deposit"],
        f"deposit/{removed.deposit_id}": ["the ledger has not what the gateway says that it took"],
        f"deposit/{stuck.deposit_id}": ["the ledger has not what the deposit says: SUCCEEDED"],
    }


async def test_lines_of_a_gateways_own_report_are_compared(teller: Teller) -> None:
    paid, unpaid, other = [await teller.deposit(KASHIER) for _ in range(3)]
    await teller.tell(paid)
    await teller.tell(other)
    unknown = deposit_pb2.Deposit()
    unknown.CopyFrom(unpaid)
    unknown.deposit_id = f"{unpaid.deposit_id[:-4]}0000"

    report = await reconcile(
        teller.ledger,
        GATEWAY,
        gateway_lines=[
            line(paid, 9_000),
            line(unknown),
            line(other, gateway_payment_id="TX-other"),
        ],
    )

    assert found_in(report) == {
        f"deposit/{paid.deposit_id}": ["the ledger has not what the gateway reports"],
        f"deposit/{unknown.deposit_id}": ["the gateway reports a deposit that is not there"],
        f"deposit/{other.deposit_id}": [
            "the gateway reports the payment TX-other of KASHIER, which is not that of the deposit"
        ],
    }
