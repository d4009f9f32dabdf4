"""Turns rows into what the domain knows, and the SQL that several files share."""

from typing import TYPE_CHECKING

from services.ledger.domain.accounts import Account, AccountKey, AccountKind
from services.ledger.domain.transfers import Phase, Posting, Transfer

if TYPE_CHECKING:
    import asyncpg

# Of what resolved a pending transfer without posting it, the postings are what was pending. Id by
# id, because row-level security makes the planner expect one row, and it would go through all
# transfers and accounts for each.
TRANSFERS_WITH_POSTINGS = """
SELECT t.transfer_id, t.phase, t.kind, t.currency_code, t.amount_minor, t.body_hash,
  t.reference, t.pending_id,
  t.refund_of, t.expire_time, t.create_time, p.account_ids, p.account_kinds, p.subjects, p.amounts
FROM unnest($1::uuid[]) AS wanted (id)
CROSS JOIN LATERAL (
  SELECT * FROM ledger.transfers WHERE transfer_id = wanted.id OFFSET 0) AS t
CROSS JOIN LATERAL (
  SELECT array_agg(e.account_id ORDER BY e.posting_index) AS account_ids,
    array_agg(a.kind ORDER BY e.posting_index) AS account_kinds,
    array_agg(a.subject ORDER BY e.posting_index) AS subjects,
    array_agg(CASE WHEN e.layer = 'RELEASED' THEN -e.amount_minor ELSE e.amount_minor END
      ORDER BY e.posting_index) AS amounts
  FROM ledger.entries e
  CROSS JOIN LATERAL (
    SELECT kind, subject FROM ledger.accounts WHERE account_id = e.account_id OFFSET 0) AS a
  WHERE e.transfer_id = t.transfer_id AND (t.phase <> 'POST' OR e.layer = 'POSTED')
) p
"""


def transfer_of(row: "asyncpg.Record") -> Transfer:
    """Return the transfer of a row of TRANSFERS_WITH_POSTINGS.

    A person sees only their own postings of it.
    """
    currency_code = row["currency_code"]
    postings = [
        Posting(str(account_id), AccountKey(AccountKind(kind), subject, currency_code), amount)
        for account_id, kind, subject, amount in zip(
            row["account_ids"] or (),
            row["account_kinds"] or (),
            row["subjects"] or (),
            row["amounts"] or (),
            strict=True,
        )
    ]
    return Transfer(
        transfer_id=str(row["transfer_id"]),
        phase=Phase(row["phase"]),
        kind=row["kind"],
        currency_code=currency_code,
        amount_minor=row["amount_minor"],
        postings=postings,
        body_hash=row["body_hash"],
        reference=row["reference"],
        pending_id=str(row["pending_id"] or ""),
        refund_of=str(row["refund_of"] or ""),
        expire_time=row["expire_time"],
        create_time=row["create_time"],
    )


def account_of(row: "asyncpg.Record") -> Account:
    """Return the account of a row that has all columns of a balance."""
    return Account(
        account_id=str(row["account_id"]),
        key=AccountKey(AccountKind(row["kind"]), row["subject"], row["currency_code"]),
        posted_minor=row["posted_minor"],
        pending_out_minor=row["pending_out_minor"],
        pending_in_minor=row["pending_in_minor"],
        limit_minor=row["limit_minor"],
        blocked=row["is_blocked"],
        create_time=row["create_time"],
    )
