"""Makes the postings of a trip's settlement. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from services.ledger.domain.accounts import AccountKey, AccountKind
from services.ledger.domain.sharing import commission_of
from services.ledger.domain.transfers import Posting


class PaymentMethod(StrEnum):
    """How a passenger pays."""

    WALLET = "WALLET"
    CASH = "CASH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """Is what a trip costs one passenger; amounts in minor units, of one currency.

    `price_minor` is the fare or, if `cancelled`, the cancellation fee; 0 for a tip that follows.
    """

    tenant_id: str
    trip_id: str
    passenger_id: str
    driver_id: str
    method: PaymentMethod
    currency_code: str
    price_minor: int
    tip_minor: int
    cancelled: bool
    commission_basis_points: int
    pending_id: str
    request_id: str

    @property
    def kind(self) -> str:
        """Return what the transfer is for, as statements show it."""
        if self.cancelled:
            return "CANCELLATION_FEE"
        return "TRIP_FARE" if self.price_minor else "TIP"

    def postings(self) -> list[Posting]:
        """Return the balanced postings; none when no money moves through the ledger.

        Cash is with the driver already, fare and tip: the wallet only owes the commission.
        """
        commission = commission_of(self.price_minor, self.commission_basis_points)
        if self.method is PaymentMethod.CASH:
            amounts = [(self._wallet(self.driver_id), -commission), (self._revenue(), commission)]
        else:
            earned = self.price_minor - commission + self.tip_minor
            amounts = [
                (self._wallet(self.passenger_id), -self.price_minor - self.tip_minor),
                (self._wallet(self.driver_id), earned),
                (self._revenue(), commission),
            ]
        return [
            Posting(key.account_id(self.tenant_id), key, amount)
            for key, amount in amounts
            if amount
        ]

    def _wallet(self, user_id: str) -> AccountKey:
        return AccountKey(AccountKind.WALLET, user_id, self.currency_code)

    def _revenue(self) -> AccountKey:
        return AccountKey(AccountKind.REVENUE, "", self.currency_code)
