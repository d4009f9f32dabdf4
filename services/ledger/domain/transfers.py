"""What a transfer is: wanted, and recorded."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from services.ledger.domain.accounts import AMOUNT_MINOR_MAX, AccountKey
from services.ledger.errors import (
    AmountInvalidError,
    CurrencyMismatchError,
    PostingsUnbalancedError,
)


class Phase(StrEnum):
    """What a transfer is: money that moved, that is held, or what became of held money."""

    POSTED = "POSTED"
    PENDING = "PENDING"
    POST = "POST"
    VOID = "VOID"
    EXPIRE = "EXPIRE"


class Layer(StrEnum):
    """What an entry counts for: what was posted, what is pending, what was set free of it."""

    POSTED = "POSTED"
    PENDING = "PENDING"
    RELEASED = "RELEASED"


class Posting(NamedTuple):
    """Is so much from (negative) or to (positive) one account, in minor units."""

    account_id: str
    key: AccountKey
    amount_minor: int


class Entry(NamedTuple):
    """Is one immutable line of the ledger."""

    layer: Layer
    account_id: str
    amount_minor: int


@dataclass(slots=True, kw_only=True)
class WantedTransfer:
    """Is a transfer that somebody asks for. Not frozen: thousands are made in a second.

    What resolves a pending transfer takes kind, currency and reference of it; without postings it
    takes these too. A refund gives back `refund_minor`, or all that is left; its only posting, if
    it has one, names who bears it instead of those who got it. `takes_blocked` takes from a blocked
    wallet too. `source` is what the caller sent; nothing here looks at it.
    """

    transfer_id: str
    phase: Phase
    kind: str
    currency_code: str
    postings: Sequence[Posting]
    body_hash: bytes
    reference: str = ""
    timeout: timedelta | None = None
    pending_id: str = ""
    refund_of: str = ""
    refund_minor: int | None = None
    linked: bool = False
    takes_blocked: bool = False
    source: object = None


@dataclass(slots=True, kw_only=True)
class Transfer:
    """Is a transfer as it was recorded."""

    transfer_id: str
    phase: Phase
    kind: str
    currency_code: str
    amount_minor: int
    postings: Sequence[Posting]
    body_hash: bytes
    reference: str
    pending_id: str
    refund_of: str
    expire_time: datetime | None
    create_time: datetime
    source: object = None


def amount_of(postings: Sequence[Posting]) -> int:
    """Return the sum of the credits."""
    return sum(posting.amount_minor for posting in postings if posting.amount_minor > 0)


def check_postings(postings: Sequence[Posting]) -> None:
    """Check that the postings are one balanced transfer.

    Raises AmountInvalidError, CurrencyMismatchError or PostingsUnbalancedError.
    """
    currency_code = postings[0].key.currency_code
    debit, credit = 0, 0
    for posting in postings:
        amount = posting.amount_minor
        if amount == 0 or abs(amount) > AMOUNT_MINOR_MAX:
            raise AmountInvalidError(abs(amount), field="postings.amount")
        if posting.key.currency_code != currency_code:
            raise CurrencyMismatchError(one.key.currency_code for one in postings)
        if amount < 0:
            debit -= amount
        else:
            credit += amount
    if debit != credit:
        raise PostingsUnbalancedError(debit_minor=debit, credit_minor=credit)
