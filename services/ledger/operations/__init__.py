"""Use cases: what callers may do with the ledger."""
