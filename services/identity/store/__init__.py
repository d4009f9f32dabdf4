"""Everything IdentityService keeps, in PostgreSQL: SQL, and rows to domain and back.

app.py makes a `PostgresStore`; operations see the Protocols of ports.py. Row-level security shows
each transaction the rows of its tenant only, so that no statement here needs to repeat the tenant.
"""

from services.identity.store.transactions import PostgresStore

__all__ = ["PostgresStore"]
