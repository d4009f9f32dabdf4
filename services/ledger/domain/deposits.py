"""What a deposit is, and what a gateway's notification does to it. Pure.

A success first makes a step due (CREDIT), in the transaction that records the notification; the
money moves in a transaction of its own, and then the state changes. Whoever is cut off in between
leaves the step due, and a worker finishes it. A charge-back goes the same way.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from services.ledger.domain.accounts import AccountKey, AccountKind, derived_id
from services.ledger.domain.transfers import Posting


class GatewayName(StrEnum):
    """Names a payment gateway."""

    PAYHERE = "PAYHERE"
    KASHIER = "KASHIER"


class DepositState(StrEnum):
    """Says what became of a deposit."""

    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"
    CHARGED_BACK = "CHARGED_BACK"


# The same moves as ledger.check_deposit_move allows. From PENDING, FAILED and EXPIRED a deposit is
# charged back when the gateway tells of that before it tells of the success.
MOVES: dict[DepositState, frozenset[DepositState]] = {
    DepositState.PENDING: frozenset(DepositState) - {DepositState.PENDING},
    DepositState.FAILED: frozenset({DepositState.SUCCEEDED, DepositState.CHARGED_BACK}),
    DepositState.EXPIRED: frozenset({DepositState.SUCCEEDED, DepositState.CHARGED_BACK}),
    DepositState.SUCCEEDED: frozenset({DepositState.CHARGED_BACK}),
    DepositState.CHARGED_BACK: frozenset(),
}


class Step(StrEnum):
    """Says which movement of money is decided and not known to be done."""

    NONE = "NONE"
    CREDIT = "CREDIT"
    CHARGE_BACK = "CHARGE_BACK"


class PaymentStatus(StrEnum):
    """Says what a notification tells of. What is not followed changes nothing: authorised, …."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CHARGED_BACK = "CHARGED_BACK"
    NOT_FOLLOWED = "NOT_FOLLOWED"


class WebhookOutcome(StrEnum):
    """Says what became of a notification."""

    APPLIED = "APPLIED"
    DUPLICATE = "DUPLICATE"
    IGNORED = "IGNORED"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deposit:
    """Is a deposit with all that is kept of it. `version` is that of its newest event."""

    deposit_id: str
    tenant_id: str
    user_id: str
    gateway: GatewayName
    amount_minor: int
    currency_code: str
    state: DepositState
    step: Step
    reference: str
    return_url: str
    body_hash: bytes
    payment_id: str
    transfer_id: str
    charge_back_transfer_id: str
    version: int
    expire_time: datetime
    create_time: datetime
    update_time: datetime

    def moved(self, state: DepositState, *, now: datetime) -> "Deposit":
        """Return the deposit in a later state, with nothing left to do.

        Raises ValueError if it must not get there.
        """
        if state not in MOVES[self.state]:
            raise ValueError(f"a deposit does not go from {self.state} to {state}")
        return replace(self, state=state, step=Step.NONE, version=self.version + 1, update_time=now)

    def credit_transfer_id(self) -> str:
        """Return the id of the transfer that credits the wallet: one for ever."""
        return derived_id("deposit", self.tenant_id, self.deposit_id, "CREDIT")

    def charge_back_id(self) -> str:
        """Return the id of the transfer that takes the money back: one for ever."""
        return derived_id("deposit", self.tenant_id, self.deposit_id, "CHARGE_BACK")

    def credit_postings(self) -> list[Posting]:
        """Return the postings that bring the money into the wallet."""
        return [
            self._posting(self._clearing(), -self.amount_minor),
            self._posting(self._wallet(), self.amount_minor),
        ]

    def charge_back_postings(self, wallet_minor: int) -> list[Posting]:
        """Return the postings that give the money back to the gateway.

        `wallet_minor` is what the wallet bears; the operator's revenue bears the rest.
        """
        postings = [
            self._posting(self._wallet(), -wallet_minor),
            self._posting(
                AccountKey(AccountKind.REVENUE, "", self.currency_code),
                wallet_minor - self.amount_minor,
            ),
            self._posting(self._clearing(), self.amount_minor),
        ]
        return [posting for posting in postings if posting.amount_minor]

    def _wallet(self) -> AccountKey:
        return AccountKey(AccountKind.WALLET, self.user_id, self.currency_code)

    def _clearing(self) -> AccountKey:
        return AccountKey(AccountKind.GATEWAY_CLEARING, self.gateway, self.currency_code)

    def _posting(self, key: AccountKey, amount_minor: int) -> Posting:
        return Posting(key.account_id(self.tenant_id), key, amount_minor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """Is what a gateway says of a payment; `order_id` is our deposit's id."""

    order_id: str
    payment_id: str
    status: PaymentStatus
    amount_minor: int
    currency_code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Is what a notification does: `deposit` is as it is afterwards.

    `reason` says why nothing is done. `finish_first` asks to do what is due and to decide again.
    """

    deposit: Deposit
    outcome: WebhookOutcome
    reason: str = ""
    finish_first: bool = False


def decide_notification(deposit: Deposit, notification: Notification, now: datetime) -> Decision:
    """Return what a verified notification does to its deposit; amounts were compared before."""
    match notification.status:
        case PaymentStatus.SUCCEEDED:
            return _succeeded(deposit, notification.payment_id)
        case PaymentStatus.FAILED:
            return _failed(deposit, now)
        case PaymentStatus.CHARGED_BACK:
            return _charged_back(deposit, now)
        case PaymentStatus.NOT_FOLLOWED:
            return _ignored(deposit, "STATUS_NOT_FOLLOWED")


def _succeeded(deposit: Deposit, payment_id: str) -> Decision:
    if deposit.payment_id == payment_id:
        return Decision(deposit=deposit, outcome=WebhookOutcome.DUPLICATE)
    if deposit.state is DepositState.CHARGED_BACK:
        return _ignored(deposit, "AFTER_CHARGE_BACK")
    if deposit.payment_id:
        return _ignored(deposit, "PAID_AGAIN")
    credit = replace(deposit, step=Step.CREDIT, payment_id=payment_id)
    return Decision(deposit=credit, outcome=WebhookOutcome.APPLIED)


def _failed(deposit: Deposit, now: datetime) -> Decision:
    if deposit.state is DepositState.FAILED and deposit.step is Step.NONE:
        return Decision(deposit=deposit, outcome=WebhookOutcome.DUPLICATE)
    if deposit.state is not DepositState.PENDING or deposit.step is not Step.NONE:
        return _ignored(deposit, "AFTER_LATER_STATE")
    failed = deposit.moved(DepositState.FAILED, now=now)
    return Decision(deposit=failed, outcome=WebhookOutcome.APPLIED)


def _charged_back(deposit: Deposit, now: datetime) -> Decision:
    if deposit.state is DepositState.CHARGED_BACK or deposit.step is Step.CHARGE_BACK:
        return Decision(deposit=deposit, outcome=WebhookOutcome.DUPLICATE)
    if deposit.step is Step.CREDIT:
        return Decision(deposit=deposit, outcome=WebhookOutcome.IGNORED, finish_first=True)
    if deposit.state is DepositState.SUCCEEDED:
        back = replace(deposit, step=Step.CHARGE_BACK)
        return Decision(deposit=back, outcome=WebhookOutcome.APPLIED)
    # The success is still on its way, and will be ignored: taken and given back, nothing moves.
    gone = deposit.moved(DepositState.CHARGED_BACK, now=now)
    return Decision(deposit=gone, outcome=WebhookOutcome.APPLIED)


def _ignored(deposit: Deposit, reason: str) -> Decision:
    return Decision(deposit=deposit, outcome=WebhookOutcome.IGNORED, reason=reason)
