"""What is hashed of a transfer is canonical JSON (RFC 8785), whatever its reference says."""

import json
import random
import sys

import pytest

from services.ledger.store.chain import PostgresChainStore
from services.shared.postgres import open_database
from tests.support.ledger_process import REVENUE, LedgerProcess, transfer, wallet
from tests.support.location_values import TENANT
from tests.support.stack_fixtures import TestDatabase

pytestmark = pytest.mark.integration

_SURROGATES = range(0xD800, 0xE000)


def references() -> list[str]:
    """Return texts with every character below U+0180, and random ones of all of Unicode."""
    characters = [chr(number) for number in range(1, 0x180)]
    texts = ["".join(characters[start : start + 64]) for start in range(0, len(characters), 64)]
    chosen = random.Random(8785)
    for _ in range(100):
        numbers = [chosen.randint(1, sys.maxunicode) for _ in range(chosen.randint(0, 60))]
        texts.append("".join(chr(number) for number in numbers if number not in _SURROGATES))
    return texts


async def test_every_reference_is_written_as_another_implementation_writes_it(
    ledger: LedgerProcess, migrated_database: TestDatabase
) -> None:
    user = await ledger.person(1_000_000)
    texts = references()
    wanted = [transfer(wallet(user), REVENUE, 1, reference=text) for text in texts]
    assert await ledger.create(*wanted) == [""] * len(wanted)
    database = await open_database(migrated_database.dsn_for("ledger"), pool_size=1)
    store = PostgresChainStore(database)
    contents = [await store.content(TENANT, one.transfer_id) for one in wanted]
    await database.close()

    for text, content in zip(texts, contents, strict=True):
        parsed = json.loads(content)
        assert parsed["reference"] == text
        again = json.dumps(parsed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert again.encode() == content
