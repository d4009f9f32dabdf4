"""Keeps the ledger in PostgreSQL."""

from services.ledger.store.ledger import PostgresLedgerStore

__all__ = ["PostgresLedgerStore"]
