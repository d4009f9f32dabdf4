"""Keys of tickets: made at first use, rotated without a gap, whoever knows of it how late."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.booking.domain.tickets import PublishedKey
from services.booking.operations.ticket_keys import TicketKeys
from services.booking.ports.requests import WriteRequest
from services.booking.ports.tickets import KeptKey
from services.booking.store.ticket_keys import PostgresTicketKeyStore
from services.booking.ticket_key_seal import AesKeySeal, KeySealBrokenError
from services.shared.ids import Uuid7Source
from services.shared.postgres import Database, Session, open_database
from tests.support.location_values import TENANT, SettableClock, new_id
from tests.support.stack_fixtures import TestDatabase

pytestmark = pytest.mark.integration
SECRET = bytes(32)


@pytest.fixture
async def database(migrated_database: TestDatabase) -> AsyncIterator[Database]:
    opened = await open_database(migrated_database.dsn_for("booking"), pool_size=8)
    yield opened
    await opened.close()


def _keys(database: Database, clock: SettableClock) -> TicketKeys:
    """Return what a process knows of keys."""
    return TicketKeys(
        store=PostgresTicketKeyStore(database, clock),
        seal=AesKeySeal([SECRET]),
        clock=clock,
        ids=Uuid7Source(clock),
    )


async def _published(database: Database) -> dict[str, PublishedKey]:
    keys = await PostgresTicketKeyStore(database, SettableClock()).keys(TENANT)
    return {key.published.key_id: key.published for key in keys}


def _request() -> WriteRequest:
    return WriteRequest(
        tenant_id=TENANT,
        caller_id="admin",
        method="RotateTicketKey",
        request_id=new_id(),
        body_hash=bytes(32),
    )


async def test_processes_that_need_the_first_key_at_once_make_one(database: Database) -> None:
    clock = SettableClock()
    clock.pass_time(0.7)

    signers = await asyncio.gather(*(_keys(database, clock).signer(TENANT) for _ in range(8)))

    (published,) = (await _published(database)).values()
    assert {signer.key_id for signer in signers} == {published.key_id}
    assert {signer.issue_time for signer in signers} == {published.sign_start_time}
    assert published.sign_start_time.microsecond == 0


class CountedKeyStore(PostgresTicketKeyStore):
    """Counts how often the keys are read."""

    reads = 0

    async def keys(self, tenant_id: str) -> list[KeptKey]:
        self.reads += 1
        return await super().keys(tenant_id)


async def test_those_who_sign_at_once_read_the_keys_once(database: Database) -> None:
    clock = SettableClock()
    first = await _keys(database, clock).signer(TENANT)
    store = CountedKeyStore(database, clock)
    keys = TicketKeys(store=store, seal=AesKeySeal([SECRET]), clock=clock, ids=Uuid7Source(clock))

    signers = await asyncio.gather(*(keys.signer(TENANT) for _ in range(50)))

    assert {signer.key_id for signer in signers} == {first.key_id}
    assert store.reads == 1


async def test_the_private_key_is_not_in_the_database(database: Database) -> None:
    made = []

    def new_key() -> Ed25519PrivateKey:
        made.append(Ed25519PrivateKey.generate())
        return made[-1]

    clock = SettableClock()
    keys = TicketKeys(
        store=PostgresTicketKeyStore(database, clock),
        seal=AesKeySeal([SECRET]),
        clock=clock,
        ids=Uuid7Source(clock),
        new_key=new_key,
    )
    await keys.signer(TENANT)

    async with database.transaction(Session(tenant_id=TENANT, role="SERVICE")) as connection:
        rows = await connection.fetch("SELECT * FROM booking.ticket_keys")
    async with database.transaction(Session(tenant_id=TENANT, role="PASSENGER")) as connection:
        hidden = await connection.fetch("SELECT * FROM booking.ticket_keys")
    assert len(rows) == len(made) == 1
    values = [value for value in rows[0].values() if isinstance(value, bytes)]
    assert values
    assert not [value for value in values if made[0].private_bytes_raw() in value]
    assert hidden == []


async def test_a_process_with_a_slow_clock_signs_in_the_keys_own_time(database: Database) -> None:
    clock, slow = SettableClock(), SettableClock()
    slow.pass_time(-2)
    await _keys(database, clock).signer(TENANT)

    signer = await _keys(database, slow).signer(TENANT)

    assert (await _published(database))[signer.key_id].signs_at(signer.issue_time)


async def test_whoever_does_not_know_of_a_rotation_yet_signs_before_it(database: Database) -> None:
    clock = SettableClock()
    informed, unaware = _keys(database, clock), _keys(database, clock)
    await unaware.signer(TENANT)
    made = await informed.rotate(_request(), sign_after=timedelta(0))
    published = await _published(database)

    signed = []
    for _ in range(80):
        clock.pass_time(0.1)
        signed += [await keys.signer(TENANT) for keys in (informed, unaware)]

    assert all(published[one.key_id].signs_at(one.issue_time) for one in signed)
    assert signed[-1].key_id == signed[-2].key_id == made.key_id


async def test_rotating_again_before_the_new_key_signs_leaves_no_gap(database: Database) -> None:
    clock = SettableClock()
    keys = _keys(database, clock)
    await keys.rotate(_request(), sign_after=timedelta(hours=1))
    await keys.rotate(_request(), sign_after=timedelta(minutes=5))
    published = await _published(database)

    for _ in range(70):
        clock.pass_time(60)
        signer = await keys.signer(TENANT)
        signing = [one.key_id for one in published.values() if one.signs_at(signer.issue_time)]
        assert signing == [signer.key_id]
    assert len(published) == 3


async def test_after_the_loss_of_the_secret_a_new_key_signs_and_the_old_one_is_still_published(
    database: Database,
) -> None:
    clock = SettableClock()
    old = await _keys(database, clock).signer(TENANT)
    keys = TicketKeys(
        store=PostgresTicketKeyStore(database, clock),
        seal=AesKeySeal([bytes(range(32))]),
        clock=clock,
        ids=Uuid7Source(clock),
    )
    with pytest.raises(KeySealBrokenError):
        await keys.signer(TENANT)

    made = await keys.rotate(_request(), sign_after=timedelta(0))
    clock.pass_time(6)

    assert (await keys.signer(TENANT)).key_id == made.key_id
    assert set(await keys.published(TENANT, {old.key_id})) == {old.key_id, made.key_id}


async def test_rotations_at_once_follow_each_other(database: Database) -> None:
    clock = SettableClock()
    processes = [_keys(database, clock) for _ in range(6)]

    await asyncio.gather(
        *(one.rotate(_request(), sign_after=timedelta(minutes=5)) for one in processes)
    )

    published = (await _published(database)).values()
    assert len(published) == 7
    assert sum(one.sign_end_time is None for one in published) == 1


async def test_a_key_is_forgotten_when_the_last_ticket_it_signed_is_over(
    database: Database,
) -> None:
    clock = SettableClock()
    keys = _keys(database, clock)
    old = await keys.signer(TENANT)
    made = await keys.rotate(_request(), sign_after=timedelta(minutes=5))

    during, _ = await keys.page(TENANT, before=None, page_size=0)
    clock.pass_time(600)
    after, _ = await keys.page(TENANT, before=None, page_size=0)
    clock.pass_time(timedelta(days=3).total_seconds())
    later, _ = await keys.page(TENANT, before=None, page_size=0)

    assert [(one.published.key_id, one.forget_time) for one in during] == [
        (made.key_id, None),
        (old.key_id, None),
    ]
    assert after[1].forget_time == made.sign_start_time + timedelta(days=2)
    assert [one.published.key_id for one in later] == [made.key_id]
