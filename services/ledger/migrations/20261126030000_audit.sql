-- migrate:up

-- What an auditor looks at: the chain of seals over all transfers, the payments that completed trips are expected to have, and
-- the reports of reconciliations. All of it is only ever inserted.

-- In the order of commits a transfer is found by its transaction; those of one transaction are an entry of a few bytes each.
CREATE INDEX transfers_in_order ON ledger.transfers (tenant_id, transaction_id);

-- One seal over all transfers of a tenant whose transaction is after that of the block before, up to last_transaction_id. The leaves
-- are in the order of (transaction_id, transfer_id).
CREATE TABLE ledger.chain_blocks (
  tenant_id           uuid NOT NULL,
  block_number        bigint NOT NULL CHECK (block_number >= 1),
  last_transaction_id xid8 NOT NULL,
  transfer_count      bigint NOT NULL CHECK (transfer_count >= 1),
  previous_hash       bytea NOT NULL CHECK (octet_length(previous_hash) = 32),
  merkle_root         bytea NOT NULL CHECK (octet_length(merkle_root) = 32),
  block_hash          bytea NOT NULL CHECK (octet_length(block_hash) = 32),
  seal_time           timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, block_number),
  UNIQUE (tenant_id, last_transaction_id)
);

-- The leaves of a block, one after the other: 16 bytes of transfer_id each, and 32 bytes of hash each. A row per block, not per
-- transfer: thousands are sealed in a second.
CREATE TABLE ledger.chain_leaves (
  tenant_id    uuid NOT NULL,
  block_number bigint NOT NULL,
  transfer_ids bytea NOT NULL,
  leaf_hashes  bytea NOT NULL,
  PRIMARY KEY (tenant_id, block_number),
  FOREIGN KEY (tenant_id, block_number) REFERENCES ledger.chain_blocks,
  CHECK (octet_length(leaf_hashes) = 2 * octet_length(transfer_ids))
);
-- Hashes do not compress.
ALTER TABLE ledger.chain_leaves ALTER COLUMN transfer_ids SET STORAGE EXTERNAL, ALTER COLUMN leaf_hashes SET STORAGE EXTERNAL;

-- Refuses a block that does not follow the one before it, or whose hash is not that of what it says.
CREATE FUNCTION ledger.check_seal() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
  before ledger.chain_blocks;
BEGIN
  SELECT * INTO before FROM ledger.chain_blocks
  WHERE tenant_id = NEW.tenant_id ORDER BY block_number DESC LIMIT 1;
  IF NEW.block_number <> coalesce(before.block_number, 0) + 1
    OR NEW.last_transaction_id <= coalesce(before.last_transaction_id, '0')
    OR NEW.previous_hash <> coalesce(before.block_hash, decode(repeat('00', 32), 'hex'))
    OR NEW.block_hash <> sha256(int8send(NEW.block_number) || int8send(NEW.transfer_count)
      || int8send((extract(epoch FROM NEW.seal_time) * 1000000)::bigint) || NEW.previous_hash || NEW.merkle_root)
  THEN
    RAISE EXCEPTION 'block % does not follow in the chain', NEW.block_number USING ERRCODE = 'WL008';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER chain_blocks_follow BEFORE INSERT ON ledger.chain_blocks
  FOR EACH ROW EXECUTE FUNCTION ledger.check_seal();

-- What TripCompleted events say is to be paid. payment_reference is that of the transfers that pay it.
CREATE TABLE ledger.expected_payments (
  tenant_id         uuid NOT NULL,
  trip_id           uuid NOT NULL,
  passenger_id      uuid NOT NULL,
  payment_reference text NOT NULL CHECK (char_length(payment_reference) <= 128),
  currency_code     text CHECK (currency_code ~ '^[A-Z]{3}$'),
  amount_minor      bigint NOT NULL CHECK (amount_minor >= 0),
  complete_time     timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, trip_id, passenger_id, payment_reference),
  CHECK ((amount_minor > 0) = (currency_code IS NOT NULL))
);
CREATE INDEX expected_payments_by_time ON ledger.expected_payments (tenant_id, complete_time);
CREATE INDEX expected_payments_of_reference ON ledger.expected_payments (tenant_id, payment_reference);

CREATE TABLE ledger.reconciliations (
  reconciliation_id uuid PRIMARY KEY,
  tenant_id         uuid NOT NULL,
  body_hash         bytea NOT NULL CHECK (octet_length(body_hash) = 16),
  scheduled_date    date,
  until_time        timestamptz NOT NULL,
  create_time       timestamptz NOT NULL,
  checks            text[] NOT NULL,
  transfer_count    bigint NOT NULL CHECK (transfer_count >= 0),
  account_count     bigint NOT NULL CHECK (account_count >= 0),
  discrepancy_count bigint NOT NULL CHECK (discrepancy_count >= 0),
  -- At most 1,000: [{"check", "subject", "description", "currency_code", "found_minor", "expected_minor"}, …]
  discrepancies     jsonb NOT NULL CHECK (jsonb_array_length(discrepancies) <= 1000)
);
-- The clock makes one a day, however many processes there are.
CREATE UNIQUE INDEX reconciliations_of_the_clock ON ledger.reconciliations (tenant_id, scheduled_date)
  WHERE scheduled_date IS NOT NULL;
CREATE INDEX reconciliations_latest ON ledger.reconciliations (tenant_id, create_time);

CREATE TRIGGER chain_blocks_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.chain_blocks
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER chain_leaves_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.chain_leaves
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER expected_payments_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.expected_payments
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER reconciliations_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.reconciliations
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.chain_blocks ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.chain_blocks FORCE ROW LEVEL SECURITY;
ALTER TABLE ledger.chain_leaves ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.chain_leaves FORCE ROW LEVEL SECURITY;
ALTER TABLE ledger.expected_payments ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.expected_payments FORCE ROW LEVEL SECURITY;
ALTER TABLE ledger.reconciliations ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.reconciliations FORCE ROW LEVEL SECURITY;

CREATE POLICY own_tenant ON ledger.chain_blocks
  USING (tenant_id = (SELECT ledger.current_tenant()) AND (SELECT ledger.sees_all()));
CREATE POLICY own_tenant ON ledger.chain_leaves
  USING (tenant_id = (SELECT ledger.current_tenant()) AND (SELECT ledger.sees_all()));
CREATE POLICY own_tenant ON ledger.expected_payments FOR SELECT
  USING (tenant_id = (SELECT ledger.current_tenant()) AND (SELECT ledger.sees_all()));
CREATE POLICY own_tenant ON ledger.reconciliations
  USING (tenant_id = (SELECT ledger.current_tenant()) AND (SELECT ledger.sees_all()));
CREATE POLICY triggers_see_all ON ledger.chain_blocks TO CURRENT_USER USING (true) WITH CHECK (true);

-- Work over all tenants: whose transfers are to be sealed, whose books are to be reconciled, and events of other services.
CREATE POLICY sweeper_sees_seals ON ledger.chain_blocks FOR SELECT USING ((SELECT ledger.is_sweeper()));
CREATE POLICY sweeper_sees_reports ON ledger.reconciliations FOR SELECT USING ((SELECT ledger.is_sweeper()));
CREATE POLICY sweeper_takes_events ON ledger.expected_payments USING ((SELECT ledger.is_sweeper()));

REVOKE EXECUTE ON FUNCTION ledger.check_seal() FROM PUBLIC;
GRANT SELECT ON ledger.chain_blocks, ledger.chain_leaves, ledger.expected_payments, ledger.reconciliations TO wayfare_ledger;
GRANT INSERT ON ledger.chain_blocks, ledger.chain_leaves, ledger.expected_payments, ledger.reconciliations TO wayfare_ledger;

-- migrate:down
-- Migrations only go forward.
