"""What audits need of the outside, as Protocols. Implemented in store/."""

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from services.ledger.domain.chain import Leaves, Seal
from services.ledger.domain.reconciliation import Check, Discrepancy, GatewayLine, Report
from services.ledger.ports import NewEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Is a sealed block with the leaves that were kept of it; None if they are gone."""

    seal: Seal
    leaves: Leaves | None


class SealTurn(Protocol):
    """Is the turn to seal a tenant's transfers, which one process has at a time."""

    async def newest(self) -> Seal | None:
        """Return the newest seal."""
        ...

    async def next_leaves(self, after: int, most: int) -> tuple[int, Leaves] | None:
        """Return the leaves that come after transaction `after`, and the last transaction of them.

        About `most`: a transaction is never divided. None if there are none yet.
        """
        ...

    async def keep(self, seal: Seal, leaves: Leaves) -> None:
        """Keep a seal."""
        ...


class ChainStore(Protocol):
    """Keeps the chains of seals."""

    async def tenants_to_seal(self) -> list[str]:
        """Return the tenants that have transfers which are not sealed."""
        ...

    def turn(self, tenant_id: str) -> AbstractAsyncContextManager[SealTurn | None]:
        """Take the turn to seal until the block ends and commits; None if another has it."""
        ...

    async def seal(self, tenant_id: str, block_number: int) -> Seal | None:
        """Return one seal."""
        ...

    async def next_block(self, tenant_id: str, from_number: int) -> Block | None:
        """Return the first block with this number or a greater one."""
        ...

    async def leaves(self, tenant_id: str, *, after: int, up_to: int) -> Leaves:
        """Return the leaves of transfers and entries as they are now, by transactions."""
        ...

    async def unsealed_count(self, tenant_id: str, *, after: int) -> int:
        """Count the transfers after a transaction."""
        ...

    async def block_of(self, tenant_id: str, transfer_id: str) -> Block | None:
        """Return the block in which a transfer belongs; None if it is not sealed yet."""
        ...

    async def content(self, tenant_id: str, transfer_id: str) -> bytes:
        """Return what is hashed of a transfer as it is now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Is what one reconciliation found; `discrepancies` are the first of so many."""

    transfer_count: int
    account_count: int
    discrepancies: Sequence[Discrepancy]
    counts: dict[Check, int]


class ReconciliationStore(Protocol):
    """Looks for discrepancies, and keeps reports."""

    async def find(self, tenant_id: str, reconciliation_id: str) -> tuple[Report, bytes] | None:
        """Return a kept report and the hash of what was asked for."""
        ...

    async def newest(self, tenant_id: str) -> Report | None:
        """Return the report that was made last."""
        ...

    async def examine(
        self,
        tenant_id: str,
        checks: Collection[Check],
        *,
        now: datetime,
        gateway_lines: Sequence[GatewayLine],
        most: int,
    ) -> Findings:
        """Make the checks, all on one snapshot; return at most so many discrepancies."""
        ...

    async def keep(
        self, tenant_id: str, report: Report, event: NewEvent, *, body_hash: bytes
    ) -> None:
        """Keep a report and its event, unless it is kept already."""
        ...

    async def tenants_without(self, day: date) -> list[str]:
        """Return the tenants with transfers for which the clock made no report on a day."""
        ...

    def clock_turn(self, tenant_id: str) -> AbstractAsyncContextManager[bool]:
        """Take the turn to reconcile by the clock until the block ends; False if another has it."""
        ...
