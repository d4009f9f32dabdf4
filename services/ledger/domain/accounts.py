"""What an account is. Its id follows from its name, so that nobody has to look it up."""

import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from services.ledger.errors import (
    CurrencyMismatchError,
    LimitAboveBalanceError,
    NotAWalletError,
)

AMOUNT_MINOR_MAX = 10**15


class AccountKind(StrEnum):
    """What an account is for."""

    WALLET = "WALLET"
    REVENUE = "REVENUE"
    CASH_FLOAT = "CASH_FLOAT"
    GATEWAY_CLEARING = "GATEWAY_CLEARING"
    WITHDRAWALS = "WITHDRAWALS"


class AccountKey(NamedTuple):
    """Names an account of a tenant: kind, subject (a user, a gateway, or nothing), currency."""

    kind: AccountKind
    subject: str
    currency_code: str

    def account_id(self, tenant_id: str) -> str:
        """Return the account's id, made from its name."""
        return derived_id("account", tenant_id, self.kind, self.subject, self.currency_code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Is an account with its balance. All amounts are in minor units; credits are positive."""

    account_id: str
    key: AccountKey
    posted_minor: int
    pending_out_minor: int
    pending_in_minor: int
    limit_minor: int | None
    blocked: bool
    create_time: datetime

    @property
    def available_minor(self) -> int | None:
        """Return what can be spent, or None where there is no limit."""
        if self.limit_minor is None:
            return None
        return self.posted_minor - self.pending_out_minor - self.limit_minor


@dataclass(slots=True)
class Funds:
    """Is what a decision knows of a wallet.

    `balance_minor` changes while a batch is decided, `read_minor` is what it was before.
    """

    subject: str
    currency_code: str
    balance_minor: int
    limit_minor: int
    blocked: bool
    read_minor: int


def check_change(account: Account, *, currency_code: str, limit_minor: int | None) -> None:
    """Check that a wallet may get a new limit, if it does, or a block.

    Raises NotAWalletError, CurrencyMismatchError or LimitAboveBalanceError.
    """
    if account.limit_minor is None:
        raise NotAWalletError(account.key.kind)
    if limit_minor is None:
        return
    if currency_code != account.key.currency_code:
        raise CurrencyMismatchError([currency_code, account.key.currency_code])
    balance = account.posted_minor - account.pending_out_minor
    if limit_minor > balance:
        raise LimitAboveBalanceError(balance_minor=balance, limit_minor=limit_minor)


def derived_id(*parts: str) -> str:
    """Return the id of what `parts` name: a UUIDv8 (RFC 9562, section 5.8) of their SHA-256."""
    digest = bytearray(hashlib.sha256("/".join(parts).encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(digest)))
