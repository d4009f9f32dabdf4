"""LedgerService: batches in which pending transfers are resolved beside new ones."""

from typing import Any

import pytest

from tests.support.ledger_process import REVENUE, LedgerProcess, pb, posting, transfer, wallet
from tests.support.location_values import TENANT, new_id
from wayfare.ledger.v1 import transfer_pb2

pytestmark = pytest.mark.integration


async def test_a_batch_resolves_pending_transfers_beside_new_ones(ledger: LedgerProcess) -> None:
    user = await ledger.person(1_000)
    kept, dropped = await ledger.hold(user, 300), await ledger.hold(user, 200)

    reasons = await ledger.create(
        transfer_pb2.NewTransfer(transfer_id=new_id(), post_pending_transfer_id=kept),
        transfer_pb2.NewTransfer(transfer_id=new_id(), void_pending_transfer_id=dropped),
        transfer_pb2.NewTransfer(transfer_id=new_id(), void_pending_transfer_id=kept),
        transfer(wallet(user), REVENUE, 700),
        transfer(wallet(user), REVENUE, 1),
    )

    assert reasons == ["", "", "PENDING_ALREADY_RESOLVED", "", "FUNDS_INSUFFICIENT"]
    assert await ledger.balance(user) == 0


async def test_a_pending_transfer_is_held_and_posted_in_one_batch(ledger: LedgerProcess) -> None:
    user = await ledger.person(1_000)
    held = transfer(wallet(user), REVENUE, 400, pending=True)
    post = transfer_pb2.NewTransfer(transfer_id=new_id(), post_pending_transfer_id=held.transfer_id)

    assert await ledger.create(held, post) == ["", ""]
    assert await ledger.create(held, post) == ["", ""]
    assert await ledger.balance(user) == 600


async def test_any_text_is_recorded_as_it_came(ledger: LedgerProcess) -> None:
    user = await ledger.person(1_000)
    references = [
        "",
        "NULL",
        '"',
        "\\",
        '\\"',
        "{a,b}",
        " x ",
        "trip/1",
        "\t\n'; --",
        "مرحبا",
        "x" * 128,
    ]
    wanted = [
        transfer(wallet(user), REVENUE, 1, reference=one, kind="NULL", pending=number % 2 == 0)
        for number, one in enumerate(references)
    ]
    wanted[0].pending_timeout.FromSeconds(90)

    assert await ledger.create(*wanted) == [""] * len(wanted)

    for one in wanted:
        request = pb.GetTransferRequest(transfer_id=one.transfer_id, tenant_id=TENANT)
        found = await ledger.call("GetTransfer", request)
        assert (found.reference, found.kind) == (one.reference, "NULL")
        lasts = found.expire_time.ToNanoseconds() - found.create_time.ToNanoseconds()
        assert lasts == 90_000_000_000 if one is wanted[0] else not found.HasField("expire_time")


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "TEST"},
        {"post_pending_transfer_id": new_id(), "void_pending_transfer_id": new_id()},
        {"post_pending_transfer_id": new_id(), "pending": True},
        {"post_pending_transfer_id": new_id(), "reference": "trip/1"},
        {
            "void_pending_transfer_id": new_id(),
            "postings": [posting(wallet(new_id()), -1), posting(REVENUE, 1)],
        },
    ],
)
async def test_a_transfer_that_is_neither_new_nor_a_resolution_is_refused(
    ledger: LedgerProcess, values: dict[str, Any]
) -> None:
    wanted = transfer_pb2.NewTransfer(transfer_id=new_id(), **values)
    request = pb.CreateTransfersRequest(tenant_id=TENANT, transfers=[wanted], request_id=new_id())

    assert await ledger.reason("CreateTransfers", request) == "REQUEST_INVALID"
