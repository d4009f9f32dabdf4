"""The chain of seals over real transfers: what is changed is named, and receipts prove the rest."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from google.protobuf.duration_pb2 import Duration

from services.ledger.operations.sealing import Sealer
from services.ledger.store.chain import PostgresChainStore
from services.shared.clock import SystemClock
from services.shared.postgres import open_database
from tests.support.ledger_process import (
    REVENUE,
    LedgerProcess,
    pb,
    running_ledger,
    transfer,
    wallet,
)
from tests.support.ledger_tampering import tampering
from tests.support.location_tokens import TokenMint
from tests.support.location_values import TENANT, new_id
from tests.support.stack_fixtures import TestDatabase
from wayfare.ledger.v1.audit_pb2 import Receipt
from wayfare_client.receipts import verify_receipt

pytestmark = pytest.mark.integration

ODD_REFERENCE = 'trip/"\\\u0001\t\u007f\u2028 naïve 🚌 \ue000'


async def walk(ledger: LedgerProcess, **values: Any) -> pb.VerifyChainResponse:
    answer: pb.VerifyChainResponse = await ledger.call(
        "VerifyChain", pb.VerifyChainRequest(**values), ledger.bearer("ADMIN", new_id())
    )
    return answer


async def until_sealed(ledger: LedgerProcess, count: int) -> pb.VerifyChainResponse:
    """Wait until so many transfers are sealed; return the walk along them."""
    async with asyncio.timeout(20):
        while True:
            answer = await walk(ledger)
            assert not answer.faults
            if answer.transfer_count == count and not answer.unsealed_transfer_count:
                return answer
            await asyncio.sleep(0.02)


async def make(ledger: LedgerProcess, count: int) -> list[str]:
    """Make transfers between two people; return their ids."""
    user = await ledger.person(1_000_000)
    wanted = [transfer(wallet(user), REVENUE, 100 + number) for number in range(count)]
    assert await ledger.create(*wanted) == [""] * count
    return [one.transfer_id for one in wanted]


async def receipt(ledger: LedgerProcess, transfer_id: str, user_id: str = "") -> Receipt:
    metadata = ledger.bearer("PASSENGER" if user_id else "ADMIN", user_id or new_id())
    answer: Receipt = await ledger.call(
        "GetReceipt", pb.GetReceiptRequest(transfer_id=transfer_id), metadata
    )
    return answer


async def test_transfers_of_every_phase_are_sealed_and_have_receipts(
    ledger: LedgerProcess,
) -> None:
    user = await ledger.person(100_000)
    paid = transfer(wallet(user), REVENUE, 5_000, reference=ODD_REFERENCE)
    assert await ledger.create(paid) == [""]
    timeout = Duration()
    timeout.FromTimedelta(timedelta(days=1))
    posted = await ledger.hold(user, 1_000, pending_timeout=timeout)
    voided = await ledger.hold(user, 2_000)
    ids = [paid.transfer_id, posted, voided]
    for method, pending in (("PostPending", posted), ("VoidPending", voided)):
        request = getattr(pb, f"{method}Request")(
            tenant_id=TENANT, pending_transfer_id=pending, request_id=new_id()
        )
        ids.append((await ledger.call(method, request)).transfer_id)
    refund = pb.RefundTransferRequest(
        tenant_id=TENANT, transfer_id=paid.transfer_id, request_id=new_id()
    )
    ids.append((await ledger.call("RefundTransfer", refund)).transfer_id)

    await until_sealed(ledger, len(ids) + 1)

    for one in ids:
        proof = await receipt(ledger, one)
        assert proof.transfer.transfer_id == one
        assert proof.leaf_content
        verify_receipt(proof)
    # RFC 8785, by another implementation of what of it is needed here.
    content = (await receipt(ledger, paid.transfer_id)).leaf_content
    parsed = json.loads(content)
    again = json.dumps(parsed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert again.encode() == content
    assert parsed["reference"] == ODD_REFERENCE


async def test_a_person_gets_a_receipt_of_their_own_postings_only(ledger: LedgerProcess) -> None:
    user, other = await ledger.person(10_000), await ledger.person(10_000)
    paid = transfer(wallet(user), REVENUE, 500)
    assert await ledger.create(paid) == [""]
    await until_sealed(ledger, 3)

    own = await receipt(ledger, paid.transfer_id, user)

    verify_receipt(own, without_content=True)
    assert not own.leaf_content
    assert [one.account.subject for one in own.transfer.postings] == [user]
    refused = await ledger.refused(
        "GetReceipt",
        pb.GetReceiptRequest(transfer_id=paid.transfer_id),
        ledger.bearer("PASSENGER", other),
    )
    assert refused.reason == "TRANSFER_UNKNOWN"


async def test_a_transfer_that_is_not_sealed_yet_has_no_receipt(
    ledger: LedgerProcess, migrated_database: TestDatabase
) -> None:
    # What still runs might commit before what is committed: nothing after it is sealed.
    connection = await asyncpg.connect(migrated_database.admin_dsn)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_current_xact_id()")
            (made,) = await make(ledger, 1)
            refused = await ledger.refused(
                "GetReceipt",
                pb.GetReceiptRequest(transfer_id=made),
                ledger.bearer("ADMIN", new_id()),
            )
            waiting = await walk(ledger)
    finally:
        await connection.close()

    assert refused.reason == "RECEIPT_NOT_READY"
    assert waiting.unsealed_transfer_count == 2
    await until_sealed(ledger, 2)


CHANGES = {
    "an entry's amount": "UPDATE ledger.entries SET amount_minor = amount_minor + 1"
    " WHERE transfer_id = $1 AND posting_index = 1",
    "an entry's account": "UPDATE ledger.entries SET account_id = gen_random_uuid()"
    " WHERE transfer_id = $1 AND posting_index = 1",
    "an entry's currency": "UPDATE ledger.entries SET currency_code = 'LKR'"
    " WHERE transfer_id = $1 AND posting_index = 1",
    "an entry's layer": "UPDATE ledger.entries SET layer = 'PENDING'"
    " WHERE transfer_id = $1 AND posting_index = 1",
    "an entry's tenant": "UPDATE ledger.entries SET tenant_id = gen_random_uuid()"
    " WHERE transfer_id = $1 AND posting_index = 1",
    "an entry's place": "UPDATE ledger.entries SET posting_index = 5"
    " WHERE transfer_id = $1 AND posting_index = 1",
    "an entry that is removed": "DELETE FROM ledger.entries"
    " WHERE transfer_id = $1 AND posting_index = 1",
    "an entry that is added": "INSERT INTO ledger.entries (transfer_id, posting_index, account_id,"
    " tenant_id, layer, currency_code, amount_minor) SELECT transfer_id, 9, account_id, tenant_id,"
    " layer, currency_code, amount_minor FROM ledger.entries WHERE transfer_id = $1 LIMIT 1",
    "its amount": "UPDATE ledger.transfers SET amount_minor = 1 WHERE transfer_id = $1",
    "its kind": "UPDATE ledger.transfers SET kind = 'TESU' WHERE transfer_id = $1",
    "its reference": "UPDATE ledger.transfers SET reference = 'x' WHERE transfer_id = $1",
    "its currency": "UPDATE ledger.transfers SET currency_code = 'LKR' WHERE transfer_id = $1",
    "its hash": "UPDATE ledger.transfers SET body_hash = set_byte(body_hash, 0,"
    " get_byte(body_hash, 0) # 1) WHERE transfer_id = $1",
    "its time": "UPDATE ledger.transfers SET create_time = create_time + interval '1 microsecond'"
    " WHERE transfer_id = $1",
    "its expiry": "UPDATE ledger.transfers SET expire_time = now() + interval '1 day',"
    " phase = 'PENDING' WHERE transfer_id = $1",
    "its phase": "UPDATE ledger.transfers SET phase = 'PENDING' WHERE transfer_id = $1",
    "its count": "UPDATE ledger.transfers SET posting_count = 3 WHERE transfer_id = $1",
    "what it refunds": "UPDATE ledger.transfers SET refund_of = gen_random_uuid()"
    " WHERE transfer_id = $1",
    "what it resolves": "UPDATE ledger.transfers SET pending_id = gen_random_uuid(), phase = 'VOID'"
    " WHERE transfer_id = $1",
    "its transaction": "UPDATE ledger.transfers SET transaction_id = '5' WHERE transfer_id = $1",
    "its tenant": "UPDATE ledger.transfers SET tenant_id = gen_random_uuid()"
    " WHERE transfer_id = $1",
    "its id": "UPDATE ledger.transfers SET transfer_id = gen_random_uuid() WHERE transfer_id = $1",
    "all of it": "DELETE FROM ledger.transfers WHERE transfer_id = $1",
}


async def test_every_change_of_a_transfer_or_its_entries_is_found(
    ledger: LedgerProcess, migrated_database: TestDatabase
) -> None:
    made = await make(ledger, len(CHANGES) + 3)
    await until_sealed(ledger, len(made) + 1)

    async with tampering(migrated_database) as connection:
        for changed, (name, statement) in zip(made, CHANGES.items(), strict=False):
            async with connection.transaction():
                done = await connection.execute(statement, changed)
                assert done.endswith(" 1"), name
            answer = await walk(ledger)
            assert changed in {fault.transfer_id for fault in answer.faults}, name

    faults = (await walk(ledger)).faults
    assert made[-1] not in {fault.transfer_id for fault in faults}


async def test_a_transfer_that_is_added_to_the_past_is_found(
    ledger: LedgerProcess, migrated_database: TestDatabase
) -> None:
    made = await make(ledger, 3)
    await until_sealed(ledger, 4)
    added = new_id()
    async with tampering(migrated_database) as connection:
        await connection.execute(
            "INSERT INTO ledger.transfers (transfer_id, tenant_id, phase, kind, currency_code,"
            " amount_minor, posting_count, reference, body_hash, create_time, transaction_id)"
            " SELECT $1, tenant_id, phase, kind, currency_code, amount_minor, posting_count,"
            " reference, body_hash, create_time, transaction_id FROM ledger.transfers"
            " WHERE transfer_id = $2",
            added,
            made[0],
        )

    (fault,) = (await walk(ledger)).faults

    assert (fault.transfer_id, fault.description) == (
        added,
        "the transfer was not there when the block was sealed",
    )


BLOCK_CHANGES = (
    "UPDATE ledger.chain_blocks SET merkle_root = sha256('') WHERE block_number = $1",
    "UPDATE ledger.chain_blocks SET previous_hash = sha256('') WHERE block_number = $1",
    "UPDATE ledger.chain_blocks SET block_hash = sha256('') WHERE block_number = $1",
    "UPDATE ledger.chain_blocks SET seal_time = now() WHERE block_number = $1",
    "UPDATE ledger.chain_blocks SET transfer_count = 7 WHERE block_number = $1",
    "UPDATE ledger.chain_blocks SET last_transaction_id = '5' WHERE block_number = $1",
    "UPDATE ledger.chain_leaves SET leaf_hashes = sha256('') WHERE block_number = $1",
    "DELETE FROM ledger.chain_leaves WHERE block_number = $1",
    "DELETE FROM ledger.chain_blocks WHERE block_number = $1",
)


@pytest.mark.parametrize("statement", BLOCK_CHANGES)
async def test_every_change_of_a_block_is_found(
    ledger: LedgerProcess, migrated_database: TestDatabase, statement: str
) -> None:
    for count in range(1, 4):
        await ledger.person(100)
        await until_sealed(ledger, count)
    async with tampering(migrated_database) as connection:
        done = await connection.execute(statement, 2)
        assert done.endswith(" 1")

    faults = (await walk(ledger)).faults

    assert 2 in {fault.block_number for fault in faults}
    assert {fault.block_number for fault in faults} <= {2, 3}


async def test_a_chain_that_is_rewritten_does_not_have_the_seal_that_was_kept(
    ledger: LedgerProcess, migrated_database: TestDatabase
) -> None:
    (made, *_) = await make(ledger, 2)
    kept = (await until_sealed(ledger, 3)).last_seal
    async with tampering(migrated_database) as connection:
        await connection.execute("DELETE FROM ledger.chain_leaves")
        await connection.execute("DELETE FROM ledger.chain_blocks")
        await connection.execute(
            "UPDATE ledger.transfers SET kind = 'X' WHERE transfer_id = $1", made
        )

    rewritten = (await until_sealed(ledger, 3)).last_seal

    assert rewritten.block_hash != kept.block_hash


async def test_a_long_chain_is_walked_in_parts(
    migrated_database: TestDatabase, valkey_url: str, short_folder: Path
) -> None:
    async with running_ledger(
        short_folder,
        dsn=migrated_database.dsn_for("ledger"),
        valkey_url=valkey_url,
        mint=TokenMint(),
        ledger_walk_seconds=1e-9,
        ledger_seal_block_max=1,
    ) as ledger:
        for _ in range(3):
            await ledger.person(100)
        parts: list[tuple[int, int]] = []
        async with asyncio.timeout(20):
            while len(parts) < 3:
                from_number = len(parts) + 1
                answer = await walk(ledger, from_block_number=from_number)
                assert not answer.faults
                if answer.block_count:
                    parts.append((answer.last_seal.block_number, answer.next_block_number))
                else:
                    await asyncio.sleep(0.02)
        only = await walk(ledger, from_block_number=2, to_block_number=2)

    assert parts == [(1, 2), (2, 3), (3, 4)]
    assert (only.last_seal.block_number, only.transfer_count) == (2, 1)
    assert (only.next_block_number, only.unsealed_transfer_count) == (0, 0)


async def test_several_processes_seal_every_transfer_once_while_transfers_go_on(
    ledger: LedgerProcess, migrated_database: TestDatabase
) -> None:
    user = await ledger.person(1_000_000)
    databases = [
        await open_database(migrated_database.dsn_for("ledger"), pool_size=2) for _ in range(3)
    ]
    sealers = [
        Sealer(store=PostgresChainStore(one), clock=SystemClock(), every_seconds=1, block_max=7)
        for one in databases
    ]
    going = True

    async def seal(sealer: Sealer) -> None:
        while going:
            await sealer.seal_all()
            await asyncio.sleep(0)

    async def pay() -> None:
        for _ in range(20):
            wanted = [transfer(wallet(user), REVENUE, 1) for _ in range(5)]
            assert await ledger.create(*wanted) == [""] * 5

    async with asyncio.TaskGroup() as group:
        sealing = [group.create_task(seal(one)) for one in sealers]
        await asyncio.gather(*(pay() for _ in range(4)))
        walked = await until_sealed(ledger, 401)
        going = False
    for one in databases:
        await one.close()
    async with tampering(migrated_database) as connection:
        rows = await connection.fetch(
            "SELECT b.block_number, b.transfer_count, l.transfer_ids FROM ledger.chain_blocks b"
            " JOIN ledger.chain_leaves l USING (tenant_id, block_number) ORDER BY 1"
        )

    assert all(one.done() for one in sealing)
    assert [row[0] for row in rows] == list(range(1, walked.block_count + 1))
    assert walked.block_count > 5
    sealed = [row[2][start : start + 16] for row in rows for start in range(0, len(row[2]), 16)]
    assert len(sealed) == len(set(sealed)) == sum(row[1] for row in rows) == 401


async def test_a_chain_that_cannot_be_continued_holds_up_nothing(
    ledger: LedgerProcess, migrated_database: TestDatabase
) -> None:
    await ledger.person(100)
    await until_sealed(ledger, 1)
    async with tampering(migrated_database) as connection:
        # Its leaves are still there, so that the next block cannot take its number.
        await connection.execute("DELETE FROM ledger.chain_blocks")
    await ledger.person(100)

    async with asyncio.timeout(20):
        while (await walk(ledger)).unsealed_transfer_count != 2:
            await asyncio.sleep(0.02)
    database = await open_database(migrated_database.dsn_for("ledger"), pool_size=2)
    store = PostgresChainStore(database)
    sealer = Sealer(store=store, clock=SystemClock(), every_seconds=1, block_max=7)
    sealed = await sealer.seal_all()
    await database.close()

    assert sealed == 0
    assert await ledger.person(100)
