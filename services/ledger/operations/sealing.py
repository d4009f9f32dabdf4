"""Seals transfers into the chain, walks it, and proves that a transfer is in it."""

import asyncio
from dataclasses import dataclass, field

import structlog
from prometheus_client import Counter

from services.ledger.audit_errors import ReceiptNotReadyError
from services.ledger.audit_ports import ChainStore
from services.ledger.domain.chain import ChainFault, Proof, Seal, faults_of, proof_of, seal_of
from services.ledger.domain.merkle import leaf_hash
from services.ledger.domain.transfers import Transfer
from services.ledger.operations.transfers import Transfers
from services.ledger.ports import Reader
from services.shared.clock import Clock
from services.shared.errors import DependencyUnavailableError

_log = structlog.get_logger()
_SEALED = Counter("wayfare_ledger_sealed_transfers_total", "Transfers sealed into the chain")
_FAILURES = Counter(
    "wayfare_ledger_seal_failures_total", "Blocks that could not be sealed: alert on any"
)
_FAULTS = Counter("wayfare_ledger_chain_faults_total", "Faults found in the chain: alert on any")
FAULTS_MAX = 100


@dataclass(slots=True, kw_only=True)
class Walk:
    """Is what a walk along the chain found; `next_block_number` is 0 when it came to its end."""

    block_count: int = 0
    transfer_count: int = 0
    unsealed_transfer_count: int = 0
    faults: list[ChainFault] = field(default_factory=list)
    last_seal: Seal | None = None
    next_block_number: int = 0


class Sealer:
    """Seals in whichever process has a tenant's turn."""

    def __init__(
        self, *, store: ChainStore, clock: Clock, every_seconds: float, block_max: int
    ) -> None:
        """Look for transfers so often; seal about `block_max` of them in a block."""
        self._store = store
        self._clock = clock
        self._every_seconds = every_seconds
        self._block_max = block_max

    async def run(self) -> None:
        """Seal until cancelled."""
        while True:
            await asyncio.sleep(self._every_seconds)
            try:
                await self.seal_all()
            except DependencyUnavailableError as error:
                _log.warning("nothing_sealed", error=error.reason)

    async def seal_all(self) -> int:
        """Seal what there is to seal; return how many transfers were.

        A chain that cannot be continued, because somebody changed it, must hold up nothing else.
        """
        total = 0
        for tenant_id in await self._store.tenants_to_seal():
            try:
                sealed = await self.seal_next(tenant_id)
                while sealed:
                    total += sealed
                    sealed = await self.seal_next(tenant_id)
            except DependencyUnavailableError:
                raise
            except Exception as error:  # noqa: BLE001 - of one tenant: the others go on
                _FAILURES.inc()
                _log.error("chain_not_continued", tenant_id=tenant_id, exc_info=error)
        return total

    async def seal_next(self, tenant_id: str) -> int:
        """Seal one block; return how many transfers it has, 0 if there is nothing for us to do.

        A block has every transfer of each transaction that it covers, and only transactions older
        than all that still run: nothing can commit into it later.
        """
        async with self._store.turn(tenant_id) as turn:
            if turn is None:
                return 0
            newest = await turn.newest()
            after = newest.last_transaction_id if newest else 0
            following = await turn.next_leaves(after, self._block_max)
            if following is None:
                return 0
            last_transaction_id, leaves = following
            seal = await asyncio.to_thread(
                seal_of,
                newest,
                leaves,
                last_transaction_id=last_transaction_id,
                seal_time=self._clock.now(),
            )
            await turn.keep(seal, leaves)
        _SEALED.inc(seal.transfer_count)
        return seal.transfer_count


class Auditor:
    """Walks the chain and makes receipts."""

    def __init__(
        self, *, store: ChainStore, transfers: Transfers, clock: Clock, walk_seconds: float
    ) -> None:
        """Walk for about `walk_seconds` in one call."""
        self._store = store
        self._transfers = transfers
        self._clock = clock
        self._walk_seconds = walk_seconds

    async def walk(self, tenant_id: str, *, first: int, last: int) -> Walk:
        """Hash every transfer of the blocks again and compare; `last` is 0 for the newest block."""
        walk = Walk()
        end = self._clock.monotonic() + self._walk_seconds
        number = max(1, first)
        previous = await self._before(tenant_id, number, walk)
        while not last or number <= last:
            is_enough = len(walk.faults) >= FAULTS_MAX or self._clock.monotonic() > end
            # At least one block, so that every call gets on.
            if is_enough and walk.block_count:
                walk.next_block_number = number
                break
            block = await self._store.next_block(tenant_id, number)
            if block is None or (last and block.seal.block_number > last):
                break
            seal = block.seal
            found = await self._store.leaves(
                tenant_id,
                after=previous.last_transaction_id if previous else 0,
                up_to=seal.last_transaction_id,
            )
            walk.faults += await asyncio.to_thread(
                faults_of, previous, seal, kept=block.leaves, found=found
            )
            walk.block_count += 1
            walk.transfer_count += len(found.hashes)
            previous = walk.last_seal = seal
            number = seal.block_number + 1
        if not walk.next_block_number and not last:
            after = previous.last_transaction_id if previous else 0
            walk.unsealed_transfer_count = await self._store.unsealed_count(tenant_id, after=after)
        _FAULTS.inc(len(walk.faults))
        del walk.faults[FAULTS_MAX:]
        return walk

    async def _before(self, tenant_id: str, number: int, walk: Walk) -> Seal | None:
        """Return the seal before the first block; without it the walk begins with a fault."""
        if number == 1:
            return None
        before = await self._store.seal(tenant_id, number - 1)
        newest = await self._store.next_block(tenant_id, number)
        if before is None and newest is not None:
            walk.faults.append(
                ChainFault(block_number=number - 1, description="the block is missing")
            )
        return before

    async def receipt(self, reader: Reader, transfer_id: str) -> tuple[Transfer, Proof, bytes]:
        """Return a transfer that the reader may see, the proof, and what is hashed of it.

        The last is empty for those who may not see all of its postings. Raises
        TransferUnknownError or ReceiptNotReadyError.
        """
        transfer = await self._transfers.find(reader, transfer_id)
        block = await self._store.block_of(reader.tenant_id, transfer_id)
        proof = None
        if block is not None and block.leaves is not None:
            proof = await asyncio.to_thread(proof_of, block.seal, block.leaves, transfer_id)
        if proof is None:
            if block is not None:
                _log.error("transfer_is_not_in_its_block", block=block.seal.block_number)
            raise ReceiptNotReadyError(transfer_id)
        content = await self._store.content(reader.tenant_id, transfer_id)
        if leaf_hash(content) != proof.leaf_hash:
            # The receipt says so by itself: its content does not have the hash that was sealed.
            _log.error("sealed_transfer_is_changed", transfer_id=transfer_id)
        return transfer, proof, content if reader.sees_all else b""
