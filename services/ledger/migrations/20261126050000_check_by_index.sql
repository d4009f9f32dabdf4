-- migrate:up

-- The triggers of entries look at some rows by their keys. Their plans are made once per connection, maybe when the tables were small
-- or not yet counted, and then went through whole tables for each batch: cost that grows with the ledger.
ALTER FUNCTION ledger.check_balanced() SET enable_seqscan = off;
ALTER FUNCTION ledger.check_refunds(uuid[]) SET enable_seqscan = off;
ALTER FUNCTION ledger.check_refunds(uuid[]) SET enable_hashjoin = off;
ALTER FUNCTION ledger.check_refunds(uuid[]) SET enable_mergejoin = off;
ALTER FUNCTION ledger.apply_entries() SET enable_seqscan = off;
ALTER FUNCTION ledger.apply_entries() SET enable_hashjoin = off;
ALTER FUNCTION ledger.apply_entries() SET enable_mergejoin = off;

-- As it was, but for OFFSET 0: without it all entries of the ledger are hashed to find those of one transfer.
CREATE OR REPLACE FUNCTION ledger.check_resolutions(resolving uuid[]) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  wrong uuid;
BEGIN
  SELECT r.transfer_id INTO wrong
  FROM ledger.transfers r
  LEFT JOIN ledger.transfers p ON p.transfer_id = r.pending_id
  WHERE r.transfer_id = ANY (resolving) AND (
    p.phase IS DISTINCT FROM 'PENDING' OR p.tenant_id <> r.tenant_id
    OR (r.phase = 'POST' AND (p.expire_time <= r.create_time OR NOT EXISTS (
      SELECT 1 FROM ledger.entries e WHERE e.transfer_id = r.transfer_id AND e.layer = 'POSTED' OFFSET 0)))
    OR EXISTS (
      SELECT 1 FROM (
        SELECT account_id, -sum(amount_minor) AS amount FROM ledger.entries
        WHERE transfer_id = p.transfer_id GROUP BY account_id, amount_minor > 0) held
      FULL JOIN (
        SELECT account_id, sum(amount_minor) AS amount FROM ledger.entries
        WHERE transfer_id = r.transfer_id AND layer = 'RELEASED' GROUP BY account_id, amount_minor > 0) released
      ON held.account_id = released.account_id AND held.amount = released.amount
      WHERE held.amount IS NULL OR released.amount IS NULL)
    OR EXISTS (
      SELECT 1 FROM (
        SELECT account_id, amount_minor > 0 AS is_credit, sum(abs(amount_minor)) AS amount FROM ledger.entries
        WHERE transfer_id = r.transfer_id AND layer = 'POSTED' GROUP BY 1, 2) done
      LEFT JOIN (
        SELECT account_id, amount_minor > 0 AS is_credit, sum(abs(amount_minor)) AS amount FROM ledger.entries
        WHERE transfer_id = p.transfer_id GROUP BY 1, 2) allowed USING (account_id, is_credit)
      WHERE allowed.amount IS NULL OR done.amount > allowed.amount))
  LIMIT 1;
  IF wrong IS NOT NULL THEN
    RAISE EXCEPTION 'transfer % does not resolve what was pending', wrong USING ERRCODE = 'WL003';
  END IF;
END $$;

-- migrate:down
-- Migrations only go forward.
