-- migrate:up

-- Double entry. Transfers and entries are only ever inserted; what PostgreSQL itself refuses, whoever writes: an
-- unbalanced transfer, a change or removal of an entry, a wallet below its limit (what is pending included), a pending
-- transfer that is resolved twice, a refund of more than was paid. Balances are written by the entries' trigger alone.

CREATE SCHEMA ledger;
GRANT USAGE ON SCHEMA ledger TO wayfare_ledger;

CREATE FUNCTION ledger.current_tenant() RETURNS uuid
  LANGUAGE sql STABLE
  RETURN NULLIF(current_setting('app.tenant_id', true), '')::uuid;

CREATE FUNCTION ledger.current_person() RETURNS uuid
  LANGUAGE sql STABLE
  RETURN NULLIF(current_setting('app.user_id', true), '')::uuid;

-- The whole tenant is seen by the service's own work and by the operator's staff; a person sees what is theirs.
CREATE FUNCTION ledger.sees_all() RETURNS boolean
  LANGUAGE sql STABLE
  RETURN current_setting('app.role', true) IN ('SERVICE', 'ADMIN', 'BUSINESS');

CREATE FUNCTION ledger.is_sweeper() RETURNS boolean
  LANGUAGE sql STABLE
  RETURN current_setting('app.role', true) = 'SWEEPER';

CREATE TABLE ledger.accounts (
  account_id        uuid PRIMARY KEY,
  tenant_id         uuid NOT NULL,
  kind              text NOT NULL CHECK (kind IN ('WALLET', 'REVENUE', 'CASH_FLOAT', 'GATEWAY_CLEARING', 'WITHDRAWALS')),
  owner_id          uuid,
  subject           text NOT NULL CHECK (char_length(subject) <= 64),
  currency_code     text NOT NULL CHECK (currency_code ~ '^[A-Z]{3}$'),
  limit_minor       bigint,
  is_blocked        boolean NOT NULL DEFAULT false,
  posted_minor      bigint NOT NULL DEFAULT 0,
  pending_out_minor bigint NOT NULL DEFAULT 0,
  pending_in_minor  bigint NOT NULL DEFAULT 0,
  create_time       timestamptz NOT NULL,
  update_time       timestamptz NOT NULL,
  -- In this order, so that nobody looks for a batch's accounts by tenant.
  CONSTRAINT accounts_one_of_a_kind UNIQUE (subject, currency_code, kind, tenant_id),
  CONSTRAINT accounts_wallets_have_owners CHECK ((kind = 'WALLET') = (owner_id IS NOT NULL)),
  CONSTRAINT accounts_wallets_have_limits CHECK ((kind = 'WALLET') = (limit_minor IS NOT NULL)),
  CONSTRAINT accounts_pending_is_never_negative CHECK (pending_out_minor >= 0 AND pending_in_minor >= 0),
  CONSTRAINT accounts_keep_their_limit CHECK (posted_minor - pending_out_minor >= limit_minor)
) WITH (fillfactor = 50);
CREATE INDEX accounts_of_owner ON ledger.accounts (owner_id) WHERE owner_id IS NOT NULL;

-- What the platform's own accounts gained since it was last folded into accounts: one row a batch, so that no payment
-- waits for the row of an account that every payment touches. Their balance is the account's plus the sum of these.
CREATE TABLE ledger.account_deltas (
  delta_id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_id        uuid NOT NULL,
  tenant_id         uuid NOT NULL,
  posted_minor      bigint NOT NULL,
  pending_out_minor bigint NOT NULL,
  pending_in_minor  bigint NOT NULL
);
CREATE INDEX account_deltas_of_account ON ledger.account_deltas (account_id);

-- phase: POSTED at once; PENDING; and what resolves a pending one: POST, VOID, EXPIRE.
CREATE TABLE ledger.transfers (
  transfer_id    uuid PRIMARY KEY,
  tenant_id      uuid NOT NULL,
  phase          text NOT NULL CHECK (phase IN ('POSTED', 'PENDING', 'POST', 'VOID', 'EXPIRE')),
  kind           text NOT NULL CHECK (char_length(kind) BETWEEN 1 AND 32),
  currency_code  text NOT NULL,
  amount_minor   bigint NOT NULL CHECK (amount_minor > 0),
  posting_count  smallint NOT NULL CHECK (posting_count BETWEEN 2 AND 16),
  pending_id     uuid,
  refund_of      uuid,
  reference      text NOT NULL CHECK (char_length(reference) <= 128),
  body_hash      bytea NOT NULL CHECK (octet_length(body_hash) = 16),
  expire_time    timestamptz,
  create_time    timestamptz NOT NULL,
  transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
  CONSTRAINT transfers_resolve_a_pending_one CHECK ((phase IN ('POST', 'VOID', 'EXPIRE')) = (pending_id IS NOT NULL)),
  CONSTRAINT transfers_expire_when_pending CHECK (expire_time IS NULL OR phase = 'PENDING'),
  CONSTRAINT transfers_refund_at_once CHECK (refund_of IS NULL OR phase = 'POSTED')
);
-- A pending transfer is resolved once, whatever races.
CREATE UNIQUE INDEX transfers_resolve_once ON ledger.transfers (pending_id) WHERE pending_id IS NOT NULL;
CREATE INDEX transfers_refunding ON ledger.transfers (refund_of) WHERE refund_of IS NOT NULL;
CREATE INDEX transfers_about ON ledger.transfers (tenant_id, reference) WHERE reference <> '';
CREATE INDEX transfers_that_expire ON ledger.transfers (expire_time) WHERE expire_time IS NOT NULL;

-- layer: what was POSTED; what is PENDING; what a resolution RELEASED of it. Every layer of a transfer sums to zero.
-- Positive amounts are credits, negative ones debits.
CREATE TABLE ledger.entries (
  transfer_id   uuid NOT NULL,
  posting_index smallint NOT NULL CHECK (posting_index BETWEEN 0 AND 31),
  entry_number  bigint GENERATED ALWAYS AS IDENTITY,
  account_id    uuid NOT NULL,
  tenant_id     uuid NOT NULL,
  layer         text NOT NULL CHECK (layer IN ('POSTED', 'PENDING', 'RELEASED')),
  currency_code text NOT NULL,
  amount_minor  bigint NOT NULL CHECK (amount_minor <> 0),
  PRIMARY KEY (transfer_id, posting_index)
);
CREATE INDEX entries_of_account ON ledger.entries (account_id, entry_number);

CREATE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
  RAISE EXCEPTION 'the ledger is immutable: % of % is refused', TG_OP, TG_TABLE_NAME USING ERRCODE = 'WL001';
END $$;

CREATE TRIGGER transfers_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.transfers
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER entries_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.entries
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

-- Refuses entries that do not make a whole, balanced transfer of the same transaction.
CREATE FUNCTION ledger.check_balanced() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
  wrong uuid;
  resolving uuid[];
  refunded uuid[];
BEGIN
  SELECT min(s.transfer_id::text) FILTER (WHERE NOT coalesce(
      s.total = 0 AND s.currency_code = t.currency_code AND s.tenant_id = t.tenant_id
      AND t.transaction_id = pg_current_xact_id()
      AND CASE
        WHEN t.phase = 'POST' AND s.layer = 'RELEASED' THEN s.last_index = t.posting_count + s.entry_count - 1
        ELSE s.layer = CASE t.phase WHEN 'PENDING' THEN 'PENDING' WHEN 'VOID' THEN 'RELEASED' WHEN 'EXPIRE' THEN 'RELEASED'
            ELSE 'POSTED' END
          AND s.entry_count = t.posting_count AND s.last_index = s.entry_count - 1 AND s.credited = t.amount_minor
      END, false)),
    array_agg(s.transfer_id) FILTER (WHERE t.pending_id IS NOT NULL),
    array_agg(t.refund_of) FILTER (WHERE t.refund_of IS NOT NULL)
  INTO wrong, resolving, refunded
  FROM (
    SELECT transfer_id, layer, currency_code, tenant_id, sum(amount_minor) AS total,
      sum(amount_minor) FILTER (WHERE amount_minor > 0) AS credited, count(*) AS entry_count,
      max(posting_index) AS last_index
    FROM new_entries GROUP BY transfer_id, layer, currency_code, tenant_id
  ) AS s
  -- Id by id: nobody knows how many rows of the transition table there are when this is planned.
  LEFT JOIN LATERAL (
    SELECT * FROM ledger.transfers WHERE transfer_id = s.transfer_id OFFSET 0) AS t ON true;
  IF wrong IS NOT NULL THEN
    RAISE EXCEPTION 'the entries of transfer % do not balance', wrong USING ERRCODE = 'WL002';
  END IF;
  IF resolving IS NOT NULL THEN PERFORM ledger.check_resolutions(resolving); END IF;
  IF refunded IS NOT NULL THEN PERFORM ledger.check_refunds(refunded); END IF;
  RETURN NULL;
END $$;

-- Refuses a resolution that does not release exactly what was pending, or posts more of it to an account.
CREATE FUNCTION ledger.check_resolutions(resolving uuid[]) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
  wrong uuid;
BEGIN
  SELECT r.transfer_id INTO wrong
  FROM ledger.transfers r
  LEFT JOIN ledger.transfers p ON p.transfer_id = r.pending_id
  WHERE r.transfer_id = ANY (resolving) AND (
    p.phase IS DISTINCT FROM 'PENDING' OR p.tenant_id <> r.tenant_id
    OR (r.phase = 'POST' AND (p.expire_time <= r.create_time OR NOT EXISTS (
      SELECT 1 FROM ledger.entries e WHERE e.transfer_id = r.transfer_id AND e.layer = 'POSTED')))
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

-- Refuses refunds of more than was paid, all refunds together. Those of one payment wait for each other.
CREATE FUNCTION ledger.check_refunds(refunded uuid[]) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
  wrong uuid;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(id::text, 0)) FROM (SELECT DISTINCT id FROM unnest(refunded) AS id ORDER BY id) AS ids;
  SELECT paid.transfer_id INTO wrong
  FROM unnest(refunded) AS wanted (id) LEFT JOIN ledger.transfers paid ON paid.transfer_id = wanted.id
  WHERE paid.phase IS NULL OR paid.phase NOT IN ('POSTED', 'POST') OR paid.amount_minor < (
    SELECT sum(amount_minor) FROM ledger.transfers back
    WHERE back.refund_of = paid.transfer_id AND back.tenant_id = paid.tenant_id
      AND back.currency_code = paid.currency_code)
  LIMIT 1;
  IF wrong IS NOT NULL THEN
    RAISE EXCEPTION 'more than was paid by % is refunded', wrong USING ERRCODE = 'WL004';
  END IF;
END $$;

-- Writes what entries mean into the balances; nobody else may.
CREATE FUNCTION ledger.apply_entries() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
  moved_count bigint;
  applied_count bigint;
BEGIN
  -- In the order of their ids, so that no two batches wait for each other. A batch that was decided without locks waits
  -- here, with all else of it written.
  PERFORM 1 FROM (SELECT DISTINCT account_id FROM new_entries ORDER BY account_id) AS m
  CROSS JOIN LATERAL (
    SELECT 1 FROM ledger.accounts WHERE account_id = m.account_id AND kind = 'WALLET' FOR NO KEY UPDATE) AS a;
  WITH moved AS (
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
    WHERE a.account_id = m.account_id AND a.currency_code = m.currency_code AND a.tenant_id = m.tenant_id
      AND a.kind = 'WALLET'
    RETURNING a.account_id
  ), systems AS (
    INSERT INTO ledger.account_deltas (account_id, tenant_id, posted_minor, pending_out_minor, pending_in_minor)
    SELECT m.account_id, m.tenant_id, m.posted, m.pending_out, m.pending_in
    FROM moved m CROSS JOIN LATERAL (
      SELECT 1 FROM ledger.accounts WHERE account_id = m.account_id AND currency_code = m.currency_code
        AND tenant_id = m.tenant_id AND kind <> 'WALLET' OFFSET 0) AS a
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

-- Triggers of one statement run in the order of their names.
CREATE TRIGGER entries_1_balance AFTER INSERT ON ledger.entries
  REFERENCING NEW TABLE AS new_entries FOR EACH STATEMENT EXECUTE FUNCTION ledger.check_balanced();
CREATE TRIGGER entries_2_apply AFTER INSERT ON ledger.entries
  REFERENCING NEW TABLE AS new_entries FOR EACH STATEMENT EXECUTE FUNCTION ledger.apply_entries();

-- Folds what the platform's own accounts gained into their rows. One at a time: a release must not overtake what
-- it releases. Returns how many rows were folded.
CREATE FUNCTION ledger.fold_deltas(most integer) RETURNS bigint
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
  folded bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended('ledger.fold_deltas', 0)) THEN RETURN 0; END IF;
  WITH taken AS (
    DELETE FROM ledger.account_deltas WHERE delta_id IN (
      SELECT delta_id FROM ledger.account_deltas ORDER BY delta_id LIMIT most)
    RETURNING account_id, posted_minor, pending_out_minor, pending_in_minor
  ), folding AS (
    UPDATE ledger.accounts a
    SET posted_minor = a.posted_minor + s.posted, pending_out_minor = a.pending_out_minor + s.pending_out,
      pending_in_minor = a.pending_in_minor + s.pending_in
    FROM (SELECT account_id, sum(posted_minor) AS posted, sum(pending_out_minor) AS pending_out,
        sum(pending_in_minor) AS pending_in FROM taken GROUP BY account_id) s
    WHERE a.account_id = s.account_id
    RETURNING 1
  )
  SELECT count(*) FROM taken INTO folded;
  RETURN folded;
END $$;

-- What happened, in the same transaction as it happened: the store of events per aggregate, without
-- gaps, and what is published from it. `services/shared/events` reads and writes it.
CREATE TABLE ledger.events (
  aggregate_type    text NOT NULL CHECK (char_length(aggregate_type) BETWEEN 1 AND 64),
  aggregate_id      text NOT NULL CHECK (char_length(aggregate_id) BETWEEN 1 AND 128),
  aggregate_version bigint NOT NULL CHECK (aggregate_version >= 1),
  tenant_id         uuid NOT NULL,
  envelope          bytea NOT NULL,
  transaction_id    xid8 NOT NULL DEFAULT pg_current_xact_id(),
  event_number      bigint GENERATED ALWAYS AS IDENTITY,
  PRIMARY KEY (aggregate_type, aggregate_id, aggregate_version)
);
CREATE INDEX events_in_order ON ledger.events (transaction_id, event_number);

-- How far events are published; one row, whose lock is the turn to publish.
CREATE TABLE ledger.event_cursor (
  is_only        boolean PRIMARY KEY DEFAULT true CHECK (is_only),
  transaction_id xid8 NOT NULL,
  event_number   bigint NOT NULL
);
INSERT INTO ledger.event_cursor (transaction_id, event_number) VALUES ('0', 0);
CREATE TRIGGER events_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.events
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.accounts FORCE ROW LEVEL SECURITY;
ALTER TABLE ledger.account_deltas ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.account_deltas FORCE ROW LEVEL SECURITY;
ALTER TABLE ledger.transfers ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.transfers FORCE ROW LEVEL SECURITY;
ALTER TABLE ledger.entries ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.entries FORCE ROW LEVEL SECURITY;
ALTER TABLE ledger.event_cursor ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.event_cursor FORCE ROW LEVEL SECURITY;
ALTER TABLE ledger.events ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.events FORCE ROW LEVEL SECURITY;

-- The subqueries make PostgreSQL ask for tenant and person once a statement, not once a row.
CREATE POLICY own_tenant ON ledger.accounts
  USING (tenant_id = (SELECT ledger.current_tenant())
    AND ((SELECT ledger.sees_all()) OR owner_id = (SELECT ledger.current_person())));
CREATE POLICY own_tenant ON ledger.account_deltas
  USING (tenant_id = (SELECT ledger.current_tenant()) AND (SELECT ledger.sees_all()));
CREATE POLICY own_tenant ON ledger.entries
  USING (tenant_id = (SELECT ledger.current_tenant()) AND ((SELECT ledger.sees_all())
    OR account_id IN (SELECT a.account_id FROM ledger.accounts a WHERE a.owner_id = (SELECT ledger.current_person()))));
CREATE POLICY own_tenant ON ledger.transfers
  USING (tenant_id = (SELECT ledger.current_tenant()) AND ((SELECT ledger.sees_all())
    OR EXISTS (SELECT 1 FROM ledger.entries e WHERE e.transfer_id = transfers.transfer_id)));
CREATE POLICY own_tenant ON ledger.events
  USING (tenant_id = (SELECT ledger.current_tenant()) AND (SELECT ledger.sees_all()));

-- The triggers and functions above run as the owner of the schema, who is nobody's log-in.
CREATE POLICY triggers_see_all ON ledger.accounts TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY triggers_see_all ON ledger.account_deltas TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY triggers_see_all ON ledger.transfers TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY triggers_see_all ON ledger.entries TO CURRENT_USER USING (true) WITH CHECK (true);

-- Work over all tenants: finding what expires, and publishing events.
CREATE POLICY sweeper_sees_expiring ON ledger.transfers FOR SELECT
  USING ((SELECT ledger.is_sweeper()));
CREATE POLICY sweeper_sees_events ON ledger.events FOR SELECT
  USING ((SELECT ledger.is_sweeper()));
CREATE POLICY sweeper_publishes ON ledger.event_cursor
  USING ((SELECT ledger.is_sweeper()));

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.current_tenant(), ledger.current_person(), ledger.sees_all(), ledger.is_sweeper(),
  ledger.fold_deltas(integer) TO wayfare_ledger;
GRANT SELECT, UPDATE ON ledger.event_cursor TO wayfare_ledger;
GRANT SELECT ON ledger.accounts, ledger.account_deltas, ledger.transfers, ledger.entries, ledger.events TO wayfare_ledger;
GRANT INSERT (account_id, tenant_id, kind, owner_id, subject, currency_code, limit_minor, create_time, update_time),
  UPDATE (limit_minor, is_blocked, update_time) ON ledger.accounts TO wayfare_ledger;
GRANT INSERT (transfer_id, tenant_id, phase, kind, currency_code, amount_minor, posting_count, pending_id, refund_of,
  reference, body_hash, expire_time, create_time) ON ledger.transfers TO wayfare_ledger;
GRANT INSERT (transfer_id, posting_index, account_id, tenant_id, layer, currency_code, amount_minor)
  ON ledger.entries TO wayfare_ledger;
GRANT INSERT (aggregate_type, aggregate_id, aggregate_version, tenant_id, envelope) ON ledger.events TO wayfare_ledger;

-- migrate:down
-- Migrations only go forward.
