"""Keeps the ledger in PostgreSQL."""

from services.ledger.store.deposits import PostgresDepositStore
from services.ledger.store.ledger import PostgresLedgerStore

__all__ = ["PostgresDepositStore", "PostgresLedgerStore"]
