"""What withdrawals need of the outside, as Protocols: their store, and whoever pays out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Protocol

from services.ledger.domain.withdrawals import State, Withdrawal
from services.ledger.ports import Reader

Change = Callable[[Withdrawal, bool], Withdrawal]
"""Returns a withdrawal as it goes on; the second argument says whether its wallet is blocked."""


class Place(NamedTuple):
    """Is where a page of withdrawals ended."""

    create_time: datetime
    withdrawal_id: str


class WithdrawalStore(Protocol):
    """Keeps withdrawals."""

    async def begin(self, withdrawal: Withdrawal) -> Withdrawal:
        """Write a request before its amount is held, or return the one that was there."""
        ...

    async def find(self, tenant_id: str, withdrawal_id: str) -> Withdrawal | None:
        """Return a withdrawal, HOLDING ones too, or None."""
        ...

    async def find_decided_by(self, tenant_id: str, request_id: str) -> Withdrawal | None:
        """Return the withdrawal that this request decided, or None."""
        ...

    async def change(self, tenant_id: str, withdrawal_id: str, change: Change) -> Withdrawal:
        """Let a withdrawal go on under its lock; a new state is told in the same transaction.

        Raises WithdrawalUnknownError, RequestIdReusedError, and what `change` raises.
        """
        ...

    async def page(
        self, reader: Reader, *, user_id: str, state: State | None, after: Place | None, most: int
    ) -> list[Withdrawal]:
        """Return withdrawals that the reader may see, newest first."""
        ...

    async def claim(
        self, *, now: datetime, lease: timedelta, most: int, pays_out: bool
    ) -> Sequence[Withdrawal]:
        """Take what is due for `lease`; what waits for a provider only if `pays_out`."""
        ...

    async def is_held(self, withdrawal: Withdrawal) -> bool:
        """Say whether the pending transfer of a withdrawal was made."""
        ...

    async def hold_is_open(self, withdrawal: Withdrawal) -> bool:
        """Say whether the pending transfer of a withdrawal was made and is unresolved."""
        ...

    async def forget(self, withdrawal: Withdrawal, *, before: datetime) -> None:
        """Remove a request that held nothing, if nobody came back to it since `before`."""
        ...


class PayoutStatus(StrEnum):
    """What a provider says of a payout."""

    PENDING = "PENDING"
    PAID = "PAID"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutAnswer:
    """Is what a provider says; PAID and REFUSED are its last word."""

    status: PayoutStatus
    payout_id: str
    reason: str = ""


class PayoutUncertainError(Exception):
    """Says that it is not known what the provider did. Never a failure of the payout."""

    def __init__(self, why: str) -> None:
        """Say why in one word, for metrics and logs."""
        super().__init__(why)
        self.why = why


class PayoutProvider(Protocol):
    """Pays out. Knows every payout by the withdrawal's id, its idempotency key."""

    async def create(self, withdrawal: Withdrawal) -> PayoutAnswer:
        """Ask to pay. The same again pays nothing more. Raises PayoutUncertainError."""
        ...

    async def find(self, withdrawal: Withdrawal) -> PayoutAnswer | None:
        """Ask what became of a payout; None if the provider does not know it.

        Raises PayoutUncertainError.
        """
        ...
