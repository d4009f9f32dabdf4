"""One error class per reason of LedgerService; `reasons` holds them all."""

from wayfare_client.errors import WayfareError


class FundsInsufficientError(WayfareError, reason="FUNDS_INSUFFICIENT"):
    """Says that a wallet would fall below its limit, what is pending counted."""


class TransferExistsDifferentlyError(WayfareError, reason="TRANSFER_EXISTS_DIFFERENTLY"):
    """Says that the transfer's id was used before with other content."""


class PendingAlreadyResolvedError(WayfareError, reason="PENDING_ALREADY_RESOLVED"):
    """Says that the pending transfer was posted, voided or expired before."""


class PendingExpiredError(WayfareError, reason="PENDING_EXPIRED"):
    """Says that the time of the pending transfer is over."""


class CurrencyMismatchError(WayfareError, reason="CURRENCY_MISMATCH"):
    """Says that postings of one transfer have several currencies."""


class PostingsUnbalancedError(WayfareError, reason="POSTINGS_UNBALANCED"):
    """Says that debits and credits of a transfer differ."""


class AmountInvalidError(WayfareError, reason="AMOUNT_INVALID"):
    """Says that an amount is not more than zero, or over 10^15 minor units."""


class AccountUnknownError(WayfareError, reason="ACCOUNT_UNKNOWN"):
    """Says that the tenant has no such account."""


class AccountBlockedError(WayfareError, reason="ACCOUNT_BLOCKED"):
    """Says that nothing may be taken from the account for now."""


class LinkedTransferFailedError(WayfareError, reason="LINKED_TRANSFER_FAILED"):
    """Says that another transfer of the same chain was refused."""


class TransferUnknownError(WayfareError, reason="TRANSFER_UNKNOWN"):
    """Says that the tenant has no such transfer."""


class TransferNotPendingError(WayfareError, reason="TRANSFER_NOT_PENDING"):
    """Says that the transfer is not a pending one."""


class AmountExceedsPendingError(WayfareError, reason="AMOUNT_EXCEEDS_PENDING"):
    """Says that more would be posted to an account than was pending for it."""


class TransferNotRefundableError(WayfareError, reason="TRANSFER_NOT_REFUNDABLE"):
    """Says that the transfer moved no money that could be given back."""


class RefundExceedsPaymentError(WayfareError, reason="REFUND_EXCEEDS_PAYMENT"):
    """Says that all refunds together would be more than was paid."""


class TripAlreadySettledError(WayfareError, reason="TRIP_ALREADY_SETTLED"):
    """Says that the trip was settled for this passenger before with other amounts."""


class LimitAboveBalanceError(WayfareError, reason="LIMIT_ABOVE_BALANCE"):
    """Says that the new limit is above what the wallet holds."""


class NotAWalletError(WayfareError, reason="NOT_A_WALLET"):
    """Says that only wallets have a limit and can be blocked."""


class GatewayNotConfiguredError(WayfareError, reason="GATEWAY_NOT_CONFIGURED"):
    """Says that the tenant has no account at the payment gateway."""


class GatewayUnavailableError(WayfareError, reason="GATEWAY_UNAVAILABLE"):
    """Says that the payment gateway does not answer."""


class DepositUnknownError(WayfareError, reason="DEPOSIT_UNKNOWN"):
    """Says that there is no such deposit, or the caller may not see it."""


class SignatureInvalidError(WayfareError, reason="SIGNATURE_INVALID"):
    """Says that a notification's signature is missing or wrong.

    Or does not cover order, amount, currency and status.
    """


class WebhookMalformedError(WayfareError, reason="WEBHOOK_MALFORMED"):
    """Says that a notification cannot be read."""


class AmountMismatchError(WayfareError, reason="AMOUNT_MISMATCH"):
    """Says that a notification tells of another amount than the deposit asks for."""


class WithdrawalUnknownError(WayfareError, reason="WITHDRAWAL_UNKNOWN"):
    """Says that the tenant has no such withdrawal."""


class WithdrawalAlreadyDecidedError(WayfareError, reason="WITHDRAWAL_ALREADY_DECIDED"):
    """Says that the withdrawal was decided otherwise before."""


class ReconciliationUnknownError(WayfareError, reason="RECONCILIATION_UNKNOWN"):
    """Says that the tenant has no such report."""


class DateInvalidError(WayfareError, reason="DATE_INVALID"):
    """Says that the date is none, or in the future."""


class ReceiptNotReadyError(WayfareError, reason="RECEIPT_NOT_READY"):
    """Says that the transfer is not sealed yet."""
