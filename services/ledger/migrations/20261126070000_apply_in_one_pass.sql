-- migrate:up

-- Wallets are updated in the order of their ids by the update itself, without a pass of locks before it: one look at each instead of
-- two, and one record in the log. That it goes account by account, in the order of `moved`, and along the key, is what is left to
-- the planner: ways through all of an index or table, and joins that have an order of their own, are shut, and IS NOT DISTINCT FROM
-- keeps other indexes out. If it ever went in another order, two batches might wait for each other; PostgreSQL would refuse one,
-- which is decided again with locks.
CREATE OR REPLACE FUNCTION ledger.apply_entries() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off AS $$
DECLARE
  moved_count bigint;
  applied_count bigint;
BEGIN
  -- A batch that was decided without locks waits here, with all else of it written.
  WITH moved AS MATERIALIZED (
    SELECT account_id, currency_code, tenant_id,
      coalesce(sum(amount_minor) FILTER (WHERE layer = 'POSTED'), 0)::bigint AS posted,
      (coalesce(sum(-amount_minor) FILTER (WHERE layer = 'PENDING' AND amount_minor < 0), 0)
        - coalesce(sum(amount_minor) FILTER (WHERE layer = 'RELEASED' AND amount_minor > 0), 0))::bigint AS pending_out,
      (coalesce(sum(amount_minor) FILTER (WHERE layer = 'PENDING' AND amount_minor > 0), 0)
        + coalesce(sum(amount_minor) FILTER (WHERE layer = 'RELEASED' AND amount_minor < 0), 0))::bigint AS pending_in
    FROM new_entries GROUP BY account_id, currency_code, tenant_id ORDER BY account_id
  ), wallets AS (
    UPDATE ledger.accounts a
    SET posted_minor = a.posted_minor + m.posted, pending_out_minor = a.pending_out_minor + m.pending_out,
      pending_in_minor = a.pending_in_minor + m.pending_in
    FROM moved m
    WHERE a.account_id = m.account_id AND a.limit_minor IS NOT NULL
      AND a.currency_code IS NOT DISTINCT FROM m.currency_code AND a.tenant_id IS NOT DISTINCT FROM m.tenant_id
    RETURNING a.account_id
  ), systems AS (
    INSERT INTO ledger.account_deltas (account_id, tenant_id, posted_minor, pending_out_minor, pending_in_minor)
    SELECT m.account_id, m.tenant_id, m.posted, m.pending_out, m.pending_in
    FROM moved m CROSS JOIN LATERAL (
      SELECT 1 FROM ledger.accounts WHERE account_id = m.account_id AND limit_minor IS NULL
        AND currency_code IS NOT DISTINCT FROM m.currency_code AND tenant_id IS NOT DISTINCT FROM m.tenant_id OFFSET 0) AS a
    WHERE m.account_id NOT IN (SELECT account_id FROM wallets)
    RETURNING 1
  )
  SELECT (SELECT count(*) FROM moved), (SELECT count(*) FROM wallets) + (SELECT count(*) FROM systems)
  INTO moved_count, applied_count;
  IF moved_count <> applied_count THEN
    RAISE EXCEPTION 'an entry names an account that is not there, or has another currency' USING ERRCODE = 'WL005';
  END IF;
  RETURN NULL;
END $$;

-- migrate:down
-- Migrations only go forward.
