"""What people and staff see of accounts, and what an ADMIN changes."""

import base64
import binascii
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from services.ledger.domain.accounts import Account, AccountKey
from services.ledger.errors import PageTokenInvalidError
from services.ledger.ports import LedgerStore, Reader, StatementLine

PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 500
# Entry number, balance before it, and the first bytes of the account's id.
_TOKEN = struct.Struct(">qq8s")


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementPage:
    """Is one page of a statement."""

    lines: Sequence[StatementLine]
    next_page_token: str


class Accounts:
    """Reads and changes accounts."""

    def __init__(self, store: LedgerStore) -> None:
        """Take where they are kept."""
        self._store = store

    async def wallets(self, reader: Reader, user_id: str) -> list[Account]:
        """Return a person's wallets by currency; none when no money ever moved."""
        return await self._store.wallets(reader, user_id)

    async def statement(
        self, reader: Reader, key: AccountKey, *, page_size: int, page_token: str
    ) -> StatementPage:
        """Return a page of posted entries, newest first. Raises PageTokenInvalidError."""
        account_id = key.account_id(reader.tenant_id)
        size = min(page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
        before = _read_token(page_token, account_id) if page_token else None
        lines = await self._store.statement(reader, account_id, before=before, most=size + 1)
        token = ""
        if len(lines) > size:
            lines = lines[:size]
            last = lines[-1]
            balance = last.balance_minor - last.amount_minor
            token = _write_token(last.entry_number, balance, account_id)
        return StatementPage(lines=lines, next_page_token=token)

    async def update(
        self,
        tenant_id: str,
        account_id: str,
        *,
        currency_code: str,
        limit_minor: int | None,
        blocked: bool | None,
    ) -> Account:
        """Set limit or block of a wallet, where not None."""
        return await self._store.update_account(
            tenant_id,
            account_id,
            currency_code=currency_code,
            limit_minor=limit_minor,
            blocked=blocked,
        )


def _write_token(entry_number: int, balance_minor: int, account_id: str) -> str:
    packed = _TOKEN.pack(entry_number, balance_minor, _start_of(account_id))
    return base64.urlsafe_b64encode(packed).decode()


def _read_token(text: str, account_id: str) -> tuple[int, int]:
    try:
        packed = base64.b64decode(text, altchars=b"-_", validate=True)
        number, balance, start = _TOKEN.unpack(packed)
    except (binascii.Error, ValueError, struct.error) as error:
        raise PageTokenInvalidError from error
    if start != _start_of(account_id):
        raise PageTokenInvalidError
    return number, balance


def _start_of(account_id: str) -> bytes:
    return bytes.fromhex(account_id.replace("-", ""))[:8]
