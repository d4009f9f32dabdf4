-- migrate:up

-- Wallets are looked up by their keys, whatever the planner believes: it went through all accounts for each account of a batch, a
-- cost that grew with the number of accounts. Plans are made once per connection, maybe while the table is empty, when nothing that
-- is counted speaks for an index. So the ways to go through all of an index or table are shut: what is left is to look up keys, in
-- the only index that the conditions fit (kind is in another one; a wallet is what has a limit: accounts_wallets_have_limits).
CREATE OR REPLACE FUNCTION ledger.apply_entries() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
  SET enable_seqscan = off SET enable_mergejoin = off SET enable_nestloop = off SET enable_indexscan = off AS $$
DECLARE
  moved_count bigint;
  applied_count bigint;
BEGIN
  -- In the order of their ids, so that no two batches wait for each other. A batch that was decided without locks waits
  -- here, with all else of it written.
  PERFORM 1 FROM (SELECT DISTINCT account_id FROM new_entries ORDER BY account_id) AS m
  CROSS JOIN LATERAL (
    SELECT 1 FROM ledger.accounts WHERE account_id = m.account_id AND limit_minor IS NOT NULL FOR NO KEY UPDATE) AS a;
  WITH moved AS MATERIALIZED (
    SELECT account_id, currency_code, tenant_id,
      coalesce(sum(amount_minor) FILTER (WHERE layer = 'POSTED'), 0) AS posted,
      coalesce(sum(-amount_minor) FILTER (WHERE layer = 'PENDING' AND amount_minor < 0), 0)
        - coalesce(sum(amount_minor) FILTER (WHERE layer = 'RELEASED' AND amount_minor > 0), 0) AS pending_out,
      coalesce(sum(amount_minor) FILTER (WHERE layer = 'PENDING' AND amount_minor > 0), 0)
        + coalesce(sum(amount_minor) FILTER (WHERE layer = 'RELEASED' AND amount_minor < 0), 0) AS pending_in
    FROM new_entries GROUP BY account_id, currency_code, tenant_id
  ), wallets AS (
    UPDATE ledger.accounts a
    SET posted_minor = a.posted_minor + m.posted, pending_out_minor = a.pending_out_minor + m.pending_out,
      pending_in_minor = a.pending_in_minor + m.pending_in
    FROM moved m
    WHERE a.account_id = ANY (ARRAY(SELECT account_id FROM moved))
      AND a.account_id = m.account_id AND a.currency_code = m.currency_code AND a.tenant_id = m.tenant_id
      AND a.limit_minor IS NOT NULL
    RETURNING a.account_id
  ), systems AS (
    INSERT INTO ledger.account_deltas (account_id, tenant_id, posted_minor, pending_out_minor, pending_in_minor)
    SELECT m.account_id, m.tenant_id, m.posted, m.pending_out, m.pending_in
    FROM moved m CROSS JOIN LATERAL (
      SELECT 1 FROM ledger.accounts WHERE account_id = m.account_id AND currency_code = m.currency_code
        AND tenant_id = m.tenant_id AND limit_minor IS NULL OFFSET 0) AS a
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
