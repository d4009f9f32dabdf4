"""What the operations need of the outside, as Protocols. Implemented in store/."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from services.ledger.domain.accounts import Account, AccountKey, Funds
from services.ledger.domain.deciding import Outcome
from services.ledger.domain.transfers import Transfer


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Says for whom something is read: row-level security shows that and nothing else."""

    tenant_id: str
    user_id: str = ""
    sees_all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementLine:
    """Is one posted entry with the balance after it, in minor units."""

    entry_number: int
    transfer_id: str
    kind: str
    amount_minor: int
    balance_minor: int
    reference: str
    create_time: datetime


class NewEvent(NamedTuple):
    """Is an event to be kept with the change that it tells of."""

    aggregate_type: str
    aggregate_id: str
    aggregate_version: int
    envelope: bytes


class BatchConflictError(Exception):
    """Says that another process changed what a batch was decided on: decide again."""


class LedgerRefusedError(Exception):
    """Says that PostgreSQL refused a batch that the decision allowed: one of the two is wrong."""


class Batch(Protocol):
    """Is one open transaction in which transfers of one tenant are decided and recorded."""

    async def wallets(self, account_ids: Collection[str], *, lock: bool) -> dict[str, Funds]:
        """Return what the wallets among these accounts have; lock them in a stable order."""
        ...

    async def wait_for_targets(self, transfer_ids: Collection[str]) -> None:
        """Wait for others who resolve or refund the same transfers. Called before any lock."""
        ...

    async def made(self, transfer_ids: Collection[str]) -> dict[str, bytes]:
        """Return the content hashes of those transfers that were made."""
        ...

    async def targets(self, transfer_ids: Collection[str]) -> dict[str, Transfer]:
        """Return these transfers with their postings, as far as they were made."""
        ...

    async def resolutions(self, pending_ids: Collection[str]) -> dict[str, str]:
        """Return in which phase these pending transfers were resolved, as far as they were."""
        ...

    async def refunded(self, transfer_ids: Collection[str]) -> dict[str, int]:
        """Return how much was given back of these transfers, in minor units."""
        ...

    async def record(self, outcomes: Sequence[Outcome], events: Sequence[NewEvent]) -> None:
        """Write transfers, entries and events. Raises BatchConflictError or LedgerRefusedError."""
        ...


class LedgerStore(Protocol):
    """Keeps the ledger."""

    def batch(self, tenant_id: str) -> AbstractAsyncContextManager[Batch]:
        """Open a transaction; it commits when the block ends."""
        ...

    async def open_accounts(
        self, tenant_id: str, keys: Mapping[str, AccountKey], *, limits: Mapping[str, int]
    ) -> None:
        """Open accounts that are not there yet, by their ids; a wallet's limit is 0 if absent."""
        ...

    async def expired(self, *, now: datetime, most: int) -> list[tuple[str, str]]:
        """Return tenant and id of pending transfers whose time is over and that are unresolved."""
        ...

    async def fold(self) -> int:
        """Fold what the platform's accounts gained into their rows; return how many gains."""
        ...

    async def find_transfer(self, reader: Reader, transfer_id: str) -> Transfer | None:
        """Return a transfer that the reader may see, or None."""
        ...

    async def wallets(self, reader: Reader, user_id: str) -> list[Account]:
        """Return a person's wallets by currency."""
        ...

    async def statement(
        self, reader: Reader, account_id: str, *, before: tuple[int, int] | None, most: int
    ) -> list[StatementLine]:
        """Return posted entries, newest first; `before` is entry number and balance to go on at."""
        ...

    async def update_account(
        self,
        tenant_id: str,
        account_id: str,
        *,
        currency_code: str,
        limit_minor: int | None,
        blocked: bool | None,
    ) -> Account:
        """Set limit or block of a wallet, where not None; `currency_code` is the limit's.

        Raises AccountUnknownError, NotAWalletError, CurrencyMismatchError, LimitAboveBalanceError.
        """
        ...
