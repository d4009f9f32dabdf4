"""SQL of the four checks of a reconciliation.

Each answers subject, description, currency_code, found, expected, and count, which is how many rows
there are with those that are left off. $1 is the tenant, $2 how many rows to answer.
"""

from services.ledger.domain.reconciliation import Check

# What each transfer's entries must be follows from its phase, as ledger.check_balanced has it.
_DEBITS_EQUAL_CREDITS = """
WITH sums AS (
  SELECT transfer_id, min(currency_code) AS code, max(currency_code) AS other_code,
    count(*) AS entry_count, sum(abs(amount_minor)) FILTER (WHERE amount_minor > 0) AS credits,
    sum(abs(amount_minor)) FILTER (WHERE amount_minor < 0) AS debits,
    coalesce(sum(amount_minor) FILTER (WHERE layer = 'POSTED'), 0) AS posted,
    coalesce(sum(amount_minor) FILTER (WHERE layer = 'PENDING'), 0) AS pending,
    coalesce(sum(amount_minor) FILTER (WHERE layer = 'RELEASED'), 0) AS released,
    count(*) FILTER (WHERE layer = 'POSTED') AS posted_count,
    count(*) FILTER (WHERE layer = 'PENDING') AS pending_count,
    count(*) FILTER (WHERE layer = 'RELEASED') AS released_count,
    sum(amount_minor) FILTER (WHERE layer = 'POSTED' AND amount_minor > 0) AS posted_credits,
    sum(amount_minor) FILTER (WHERE layer = 'PENDING' AND amount_minor > 0) AS pending_credits,
    sum(amount_minor) FILTER (WHERE layer = 'RELEASED' AND amount_minor > 0) AS released_credits
  FROM ledger.entries WHERE tenant_id = $1 GROUP BY transfer_id
), both_sides AS (
  SELECT coalesce(t.transfer_id, s.transfer_id) AS transfer_id, t.phase, t.amount_minor,
    coalesce(t.currency_code, s.code) AS currency_code, t.posting_count, s.code, s.other_code,
    s.entry_count, s.credits, s.debits, s.posted, s.pending, s.released, s.released_count,
    CASE t.phase WHEN 'PENDING' THEN s.pending_count WHEN 'VOID' THEN s.released_count
      WHEN 'EXPIRE' THEN s.released_count ELSE s.posted_count END AS own_count,
    CASE t.phase WHEN 'PENDING' THEN s.pending_credits WHEN 'VOID' THEN s.released_credits
      WHEN 'EXPIRE' THEN s.released_credits ELSE s.posted_credits END AS own_credits
  FROM (SELECT * FROM ledger.transfers WHERE tenant_id = $1) AS t
  FULL JOIN sums s ON s.transfer_id = t.transfer_id
), judged AS (
  SELECT 'transfer/' || transfer_id AS subject, currency_code,
    coalesce(own_credits, credits) AS found, coalesce(amount_minor, debits) AS expected, CASE
      WHEN phase IS NULL THEN 'there are entries of a transfer that is not there'
      WHEN entry_count IS NULL THEN 'the transfer has no entries'
      WHEN code <> currency_code OR other_code <> currency_code
        THEN 'entries have another currency than the transfer'
      WHEN posted <> 0 OR pending <> 0 OR released <> 0 THEN 'debits and credits differ'
      WHEN own_credits IS DISTINCT FROM amount_minor OR own_count <> posting_count
        THEN 'the entries are not what the transfer says'
      WHEN entry_count <> own_count + CASE phase WHEN 'POST' THEN released_count ELSE 0 END
        OR (phase = 'POST' AND released_count = 0)
        THEN 'the entries do not fit the phase of the transfer'
    END AS description
  FROM both_sides
  UNION ALL
  SELECT 'currency/' || currency_code, currency_code, sum(minor), 0,
    CASE WHEN sum(minor) <> 0 THEN 'all balances of the currency together are not zero' END
  FROM (
    SELECT currency_code, posted_minor AS minor FROM ledger.accounts WHERE tenant_id = $1
    UNION ALL
    SELECT a.currency_code, d.posted_minor FROM ledger.account_deltas d
    JOIN ledger.accounts a ON a.account_id = d.account_id WHERE d.tenant_id = $1) AS balances
  GROUP BY currency_code
)
SELECT subject, description, currency_code, found::bigint, expected::bigint,
  count(*) OVER () AS count
FROM judged WHERE description IS NOT NULL ORDER BY subject LIMIT $2
"""

_BALANCES_EQUAL_ENTRIES = """
WITH sums AS (
  SELECT account_id, min(currency_code) AS code, max(currency_code) AS other_code,
    coalesce(sum(amount_minor) FILTER (WHERE layer = 'POSTED'), 0) AS posted,
    coalesce(sum(-amount_minor) FILTER (WHERE layer = 'PENDING' AND amount_minor < 0), 0)
      - coalesce(sum(amount_minor) FILTER (WHERE layer = 'RELEASED' AND amount_minor > 0), 0)
      AS pending_out,
    coalesce(sum(amount_minor) FILTER (WHERE layer = 'PENDING' AND amount_minor > 0), 0)
      + coalesce(sum(amount_minor) FILTER (WHERE layer = 'RELEASED' AND amount_minor < 0), 0)
      AS pending_in
  FROM ledger.entries WHERE tenant_id = $1 GROUP BY account_id
), deltas AS (
  SELECT account_id, sum(posted_minor) AS posted, sum(pending_out_minor) AS pending_out,
    sum(pending_in_minor) AS pending_in
  FROM ledger.account_deltas WHERE tenant_id = $1 GROUP BY account_id
), balances AS (
  SELECT a.account_id, a.currency_code, a.posted_minor + coalesce(d.posted, 0) AS posted,
    a.pending_out_minor + coalesce(d.pending_out, 0) AS pending_out,
    a.pending_in_minor + coalesce(d.pending_in, 0) AS pending_in
  FROM (SELECT * FROM ledger.accounts WHERE tenant_id = $1) AS a
  LEFT JOIN deltas d ON d.account_id = a.account_id
), judged AS (
  SELECT 'account/' || coalesce(b.account_id, s.account_id) AS subject,
    coalesce(b.currency_code, s.code) AS currency_code, v.found,
    coalesce(v.expected, 0) AS expected,
    CASE
      WHEN b.account_id IS NULL THEN 'there are entries of an account that is not there'
      WHEN v.found <> coalesce(v.expected, 0)
        THEN format('what is %s is not the sum of the entries', v.name)
    END AS description
  FROM balances b FULL JOIN sums s ON s.account_id = b.account_id
  CROSS JOIN LATERAL (VALUES ('posted', b.posted, s.posted),
    ('pending to go out', b.pending_out, s.pending_out),
    ('pending to come in', b.pending_in, s.pending_in)) AS v (name, found, expected)
  WHERE b.account_id IS NOT NULL OR v.name = 'posted'
  UNION ALL
  SELECT 'account/' || b.account_id, b.currency_code, NULL, NULL,
    'entries have another currency than the account'
  FROM balances b JOIN sums s ON s.account_id = b.account_id
  WHERE s.code <> b.currency_code OR s.other_code <> b.currency_code
)
SELECT subject, description, currency_code, found::bigint, expected::bigint,
  count(*) OVER () AS count
FROM judged WHERE description IS NOT NULL ORDER BY subject LIMIT $2
"""

# A settlement in cash moves the commission alone, from somebody else than the passenger to the
# operator: that it was made is what can be checked. What was given back later was paid before.
# $3: trips that ended before this are overdue; $4: how far back trips are looked at.
_TRIPS_PAID = """
WITH due AS (
  SELECT payment_reference, currency_code, min(trip_id::text) AS trip_id,
    sum(amount_minor) AS amount, count(*) AS people, array_agg(passenger_id) AS passengers,
    max(complete_time) < $3 AS is_overdue
  FROM ledger.expected_payments WHERE tenant_id = $1 AND complete_time >= $4
  GROUP BY payment_reference, currency_code
), compared AS (
  SELECT due.*, p.* FROM due CROSS JOIN LATERAL (
    SELECT coalesce(sum(t.amount_minor) FILTER (WHERE NOT cash.is_cash), 0) AS paid,
      coalesce(sum(t.amount_minor - back.minor) FILTER (WHERE NOT cash.is_cash), 0) AS kept,
      count(*) FILTER (WHERE cash.is_cash) AS cash_count,
      count(*) FILTER (WHERE t.amount_minor > back.minor) AS payment_count,
      min(t.currency_code) AS paid_code
    FROM ledger.transfers t
    CROSS JOIN LATERAL (
      SELECT coalesce(sum(r.amount_minor), 0) AS minor FROM ledger.transfers r
      WHERE r.refund_of = t.transfer_id AND r.tenant_id = $1) AS back
    CROSS JOIN LATERAL (
      SELECT t.kind IN ('TRIP_FARE', 'CANCELLATION_FEE') AND coalesce(bool_and(
        CASE WHEN e.amount_minor > 0 THEN a.kind = 'REVENUE'
          ELSE a.kind = 'WALLET' AND a.owner_id <> ALL (due.passengers) END), false) AS is_cash
      FROM ledger.entries e JOIN ledger.accounts a ON a.account_id = e.account_id
      WHERE e.transfer_id = t.transfer_id AND e.layer = 'POSTED') AS cash
    WHERE t.tenant_id = $1 AND t.reference = due.payment_reference AND t.reference <> ''
      AND t.currency_code = coalesce(due.currency_code, t.currency_code)
      AND t.phase IN ('POSTED', 'POST') AND t.refund_of IS NULL AND t.kind <> 'TIP') AS p
), judged AS (
  SELECT 'trip/' || trip_id AS subject, coalesce(currency_code, paid_code) AS currency_code,
    CASE WHEN cash_count = 0 THEN CASE WHEN paid < amount THEN paid ELSE kept END END AS found,
    CASE WHEN cash_count = 0 THEN amount END AS expected, CASE
      WHEN cash_count = 0 AND is_overdue AND paid = 0 AND amount > 0 THEN 'the trip is not paid'
      WHEN cash_count = 0 AND is_overdue AND paid < amount THEN 'less is paid than is due'
      WHEN cash_count = 0 AND kept > amount
        THEN format('more is paid than is due, by %s payments', payment_count)
      WHEN cash_count > 0 AND payment_count > people
        THEN format('the trip is settled %s times for %s passengers', payment_count, people)
      WHEN cash_count > 0 AND is_overdue AND payment_count < people
        THEN format('the trip is settled for %s of %s passengers', payment_count, people)
    END AS description
  FROM compared
)
SELECT subject, description, currency_code, found::bigint, expected::bigint,
  count(*) OVER () AS count
FROM judged WHERE description IS NOT NULL ORDER BY subject LIMIT $2
"""

# taken: what a gateway says of each payment, once, whatever came of its notification. cleared: what
# the ledger has of each deposit on the gateway's account. A movement may be due for a minute.
# $3: a minute ago; $4 to $8: the gateways' own lines.
_GATEWAY_EQUALS_LEDGER = """
WITH said AS (
  SELECT deposit_id, payment_id,
    coalesce(max(amount_minor) FILTER (WHERE status = 'SUCCEEDED'), 0)
      - coalesce(max(amount_minor) FILTER (WHERE status = 'CHARGED_BACK'), 0) AS minor,
    bool_or(status = 'SUCCEEDED') AS is_taken
  FROM ledger.payment_webhooks
  WHERE tenant_id = $1 AND is_verified AND deposit_id IS NOT NULL
    AND status IN ('SUCCEEDED', 'CHARGED_BACK')
  GROUP BY deposit_id, payment_id
), taken AS (
  -- A charge-back whose success was never told takes nothing of ours.
  SELECT deposit_id, sum(CASE WHEN is_taken THEN minor ELSE 0 END) AS minor FROM said
  GROUP BY deposit_id
), movements AS (
  SELECT t.transfer_id, t.reference, a.subject AS gateway, e.currency_code, -e.amount_minor AS minor
  FROM ledger.accounts a
  JOIN ledger.entries e ON e.account_id = a.account_id AND e.layer = 'POSTED'
  JOIN ledger.transfers t ON t.transfer_id = e.transfer_id
  WHERE a.tenant_id = $1 AND a.kind = 'GATEWAY_CLEARING'
), deposits AS (
  SELECT d.deposit_id, d.gateway, d.currency_code, d.payment_id, d.state, d.step,
    'deposit/' || d.deposit_id AS subject, d.step <> 'NONE' AND d.step_time >= $3 AS is_moving,
    CASE d.state WHEN 'SUCCEEDED' THEN d.amount_minor ELSE 0 END AS counted,
    coalesce(taken.minor, 0) AS taken
  FROM ledger.deposits d LEFT JOIN taken ON taken.deposit_id = d.deposit_id
  WHERE d.tenant_id = $1
), cleared AS (
  SELECT reference, gateway, currency_code, sum(minor) AS minor FROM movements
  GROUP BY reference, gateway, currency_code
), compared AS (
  SELECT d.*, coalesce(c.minor, 0) AS cleared FROM deposits d
  LEFT JOIN cleared c ON c.reference = d.subject AND c.gateway = d.gateway
    AND c.currency_code = d.currency_code
), lines AS (
  SELECT deposit_id, gateway, payment_id, currency_code, sum(minor) AS minor
  FROM unnest($4::uuid[], $5::text[], $6::text[], $7::text[], $8::bigint[])
    AS line (deposit_id, gateway, payment_id, currency_code, minor)
  GROUP BY deposit_id, gateway, payment_id, currency_code
), line_sums AS (
  SELECT deposit_id, currency_code, sum(minor) AS minor FROM lines GROUP BY 1, 2
), judged AS (
  SELECT subject, currency_code, cleared AS found, CASE
      WHEN cleared <> taken THEN taken ELSE counted END AS expected, CASE
      WHEN is_moving THEN NULL
      WHEN cleared <> taken THEN 'the ledger has not what the gateway says that it took'
      WHEN cleared <> counted THEN format('the ledger has not what the deposit says: %s', state)
      WHEN step <> 'NONE' THEN 'money that is due does not move'
    END AS description
  FROM compared
  UNION ALL
  SELECT 'transfer/' || m.transfer_id, m.currency_code, m.minor, 0,
    format('money comes from %s without a deposit', m.gateway)
  FROM movements m WHERE m.minor > 0 AND NOT EXISTS (
    SELECT 1 FROM deposits d WHERE d.subject = m.reference AND d.gateway = m.gateway
      AND d.currency_code = m.currency_code)
  UNION ALL
  SELECT 'deposit/' || l.deposit_id, l.currency_code, c.cleared, l.minor, CASE
      WHEN c.deposit_id IS NULL THEN 'the gateway reports a deposit that is not there'
      WHEN c.currency_code <> l.currency_code THEN 'the gateway reports another currency'
      WHEN c.cleared <> l.minor THEN 'the ledger has not what the gateway reports'
    END
  FROM line_sums l LEFT JOIN compared c ON c.deposit_id = l.deposit_id
  UNION ALL
  SELECT 'deposit/' || l.deposit_id, l.currency_code, NULL, NULL,
    format('the gateway reports the payment %s of %s, which is not that of the deposit',
      l.payment_id, l.gateway)
  FROM lines l JOIN deposits d ON d.deposit_id = l.deposit_id
  WHERE d.gateway <> l.gateway OR d.payment_id IS DISTINCT FROM l.payment_id
)
SELECT subject, description, currency_code, found::bigint, expected::bigint,
  count(*) OVER () AS count
FROM judged WHERE description IS NOT NULL ORDER BY subject LIMIT $2
"""

STATEMENTS = {
    Check.DEBITS_EQUAL_CREDITS: _DEBITS_EQUAL_CREDITS,
    Check.BALANCES_EQUAL_ENTRIES: _BALANCES_EQUAL_ENTRIES,
    Check.TRIPS_PAID: _TRIPS_PAID,
    Check.GATEWAY_EQUALS_LEDGER: _GATEWAY_EQUALS_LEDGER,
}
