-- migrate:up

-- Deposits by payment gateways, and what came of every webhook. Money is not kept here: it moves by transfers, whose ids
-- follow from the deposit's. step says which movement is decided and not known to be done; a worker finishes it.
CREATE TABLE ledger.deposits (
  deposit_id              uuid PRIMARY KEY,
  tenant_id               uuid NOT NULL,
  user_id                 uuid NOT NULL,
  gateway                 text NOT NULL CHECK (gateway IN ('PAYHERE', 'KASHIER')),
  amount_minor            bigint NOT NULL CHECK (amount_minor > 0),
  currency_code           text NOT NULL CHECK (currency_code ~ '^[A-Z]{3}$'),
  state                   text NOT NULL CHECK (state IN ('PENDING', 'SUCCEEDED', 'FAILED', 'EXPIRED', 'CHARGED_BACK')),
  step                    text NOT NULL CHECK (step IN ('NONE', 'CREDIT', 'CHARGE_BACK')),
  reference               text NOT NULL CHECK (char_length(reference) <= 128),
  return_url              text NOT NULL CHECK (char_length(return_url) <= 512),
  body_hash               bytea NOT NULL CHECK (octet_length(body_hash) = 16),
  payment_id              text CHECK (char_length(payment_id) BETWEEN 1 AND 64),
  transfer_id             uuid,
  charge_back_transfer_id uuid,
  version                 bigint NOT NULL CHECK (version >= 1),
  expire_time             timestamptz NOT NULL,
  create_time             timestamptz NOT NULL,
  update_time             timestamptz NOT NULL,
  step_time               timestamptz NOT NULL,
  -- Money that was counted has a payment and a transfer, and what has none was not counted.
  CONSTRAINT deposits_succeed_with_a_transfer CHECK (state <> 'SUCCEEDED' OR (payment_id IS NOT NULL AND transfer_id IS NOT NULL)),
  CONSTRAINT deposits_credit_a_payment CHECK (step <> 'CREDIT' OR (payment_id IS NOT NULL AND state IN ('PENDING', 'FAILED', 'EXPIRED'))),
  CONSTRAINT deposits_charge_back_what_was_there CHECK (step <> 'CHARGE_BACK' OR state = 'SUCCEEDED')
);
-- A gateway's payment is counted for one deposit, whatever races.
CREATE UNIQUE INDEX deposits_take_a_payment_once ON ledger.deposits (tenant_id, gateway, payment_id)
  WHERE payment_id IS NOT NULL;
CREATE INDEX deposits_waiting ON ledger.deposits (expire_time) WHERE state = 'PENDING' AND step = 'NONE';
CREATE INDEX deposits_unfinished ON ledger.deposits (step_time) WHERE step <> 'NONE';
CREATE INDEX deposits_of_user ON ledger.deposits (user_id, create_time);

-- Refuses a state that is taken back, and a payment or a transfer that is exchanged. Who may write what else is a grant's.
CREATE FUNCTION ledger.check_deposit_move() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
  IF NOT (NEW.state = OLD.state
      OR OLD.state = 'PENDING'
      OR (OLD.state IN ('FAILED', 'EXPIRED') AND NEW.state IN ('SUCCEEDED', 'CHARGED_BACK'))
      OR (OLD.state = 'SUCCEEDED' AND NEW.state = 'CHARGED_BACK'))
    OR NEW.version <> OLD.version + (NEW.state <> OLD.state)::int
    OR (OLD.payment_id IS NOT NULL AND NEW.payment_id IS DISTINCT FROM OLD.payment_id)
    OR (OLD.transfer_id IS NOT NULL AND NEW.transfer_id IS DISTINCT FROM OLD.transfer_id)
    OR (OLD.charge_back_transfer_id IS NOT NULL
      AND NEW.charge_back_transfer_id IS DISTINCT FROM OLD.charge_back_transfer_id) THEN
    RAISE EXCEPTION 'deposit % does not go from % to %', OLD.deposit_id, OLD.state, NEW.state USING ERRCODE = 'WL006';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER deposits_move_forward BEFORE UPDATE ON ledger.deposits
  FOR EACH ROW EXECUTE FUNCTION ledger.check_deposit_move();

-- What came of every webhook, for audit. tenant_id is absent when nobody's account signed it, and for sums: a line with a
-- webhook_count above 1 stands for that many with the same outcome, body_hash being the hash of their hashes.
CREATE TABLE ledger.payment_webhooks (
  line_id       uuid PRIMARY KEY,
  tenant_id     uuid,
  gateway       text NOT NULL CHECK (gateway IN ('PAYHERE', 'KASHIER')),
  outcome       text NOT NULL CHECK (outcome IN ('APPLIED', 'DUPLICATE', 'IGNORED', 'REFUSED')),
  reason        text NOT NULL CHECK (char_length(reason) <= 64),
  is_verified   boolean NOT NULL,
  deposit_id    uuid,
  order_id      text NOT NULL CHECK (char_length(order_id) <= 64),
  payment_id    text NOT NULL CHECK (char_length(payment_id) <= 64),
  status        text CHECK (status IN ('SUCCEEDED', 'FAILED', 'CHARGED_BACK', 'NOT_FOLLOWED')),
  amount_minor  bigint,
  currency_code text NOT NULL CHECK (char_length(currency_code) <= 3),
  body_hash     bytea NOT NULL CHECK (octet_length(body_hash) = 32),
  body_bytes    bigint NOT NULL CHECK (body_bytes >= 0),
  webhook_count bigint NOT NULL CHECK (webhook_count >= 1),
  receive_time  timestamptz NOT NULL,
  CONSTRAINT payment_webhooks_refuse_with_a_reason CHECK (outcome <> 'REFUSED' OR reason <> ''),
  CONSTRAINT payment_webhooks_apply_verified_ones CHECK (outcome = 'REFUSED' OR is_verified),
  CONSTRAINT payment_webhooks_apply_one_by_one CHECK (outcome <> 'APPLIED' OR (deposit_id IS NOT NULL AND webhook_count = 1))
);
CREATE INDEX payment_webhooks_of_deposit ON ledger.payment_webhooks (deposit_id, receive_time) WHERE deposit_id IS NOT NULL;
CREATE INDEX payment_webhooks_in_order ON ledger.payment_webhooks (tenant_id, receive_time);
CREATE TRIGGER payment_webhooks_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.payment_webhooks
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.deposits ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.deposits FORCE ROW LEVEL SECURITY;
ALTER TABLE ledger.payment_webhooks ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.payment_webhooks FORCE ROW LEVEL SECURITY;

CREATE POLICY own_tenant ON ledger.deposits
  USING (tenant_id = (SELECT ledger.current_tenant())
    AND ((SELECT ledger.sees_all()) OR user_id = (SELECT ledger.current_person())))
  WITH CHECK (tenant_id = (SELECT ledger.current_tenant()) AND (SELECT ledger.sees_all()));
CREATE POLICY own_tenant ON ledger.payment_webhooks
  USING (tenant_id = (SELECT ledger.current_tenant()) AND (SELECT ledger.sees_all()));

-- Work over all tenants: an order's tenant is not known before it is found; what expires, and what was left.
CREATE POLICY sweeper_sees_deposits ON ledger.deposits FOR SELECT
  USING ((SELECT ledger.is_sweeper()));
CREATE POLICY sweeper_sees_webhooks ON ledger.payment_webhooks FOR SELECT
  USING ((SELECT ledger.is_sweeper()));
CREATE POLICY sweeper_keeps_webhooks ON ledger.payment_webhooks FOR INSERT
  WITH CHECK ((SELECT ledger.is_sweeper()) AND outcome <> 'APPLIED');

REVOKE EXECUTE ON FUNCTION ledger.check_deposit_move() FROM PUBLIC;
GRANT SELECT ON ledger.deposits, ledger.payment_webhooks TO wayfare_ledger;
GRANT INSERT (deposit_id, tenant_id, user_id, gateway, amount_minor, currency_code, state, step, reference, return_url,
    body_hash, version, expire_time, create_time, update_time, step_time),
  UPDATE (state, step, payment_id, transfer_id, charge_back_transfer_id, version, update_time, step_time)
  ON ledger.deposits TO wayfare_ledger;
GRANT INSERT ON ledger.payment_webhooks TO wayfare_ledger;

-- migrate:down
-- Migrations only go forward.
