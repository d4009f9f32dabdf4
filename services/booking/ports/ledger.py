"""What the payment saga needs of the ledger."""

from typing import Protocol

from services.booking.domain.charges import Charge, OpenedDeposit, Refund, WantedDeposit


class Ledger(Protocol):
    """Moves money. Every call may be repeated: ids say that it is the same.

    Every method raises DependencyUnavailableError when the ledger is away or too slow; then it may
    have been done or not.
    """

    async def charge(self, charge: Charge) -> str:
        """Make a transfer; return "" when it is made, now or before, or the reason why not."""
        ...

    async def refund(self, refund: Refund) -> str:
        """Give money back; return "" when it is done, now or before, or the reason why not."""
        ...

    async def open_deposit(self, wanted: WantedDeposit) -> OpenedDeposit | str:
        """Open a deposit; return where to pay it, or the reason why not."""
        ...
