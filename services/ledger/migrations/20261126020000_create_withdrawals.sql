-- migrate:up

-- Money that people take out of their wallets, and flags of what looks like fraud. PostgreSQL itself refuses a
-- withdrawal that is paid while its hold is not posted, that is given up while the amount is not free, and every move
-- that the table of states does not have.

-- HOLDING is not told to anybody: the request is written, whether its amount is held is not known yet.
-- outcome: what will become of it for certain, before the held amount follows and the state with it.
-- next_time: when a worker has something to do with it; null when nobody has.
CREATE TABLE ledger.withdrawals (
  withdrawal_id      uuid PRIMARY KEY,
  tenant_id          uuid NOT NULL,
  user_id            uuid NOT NULL,
  currency_code      text NOT NULL CHECK (currency_code ~ '^[A-Z]{3}$'),
  amount_minor       bigint NOT NULL CHECK (amount_minor > 0),
  payout_destination text NOT NULL CHECK (char_length(payout_destination) BETWEEN 1 AND 128),
  transfer_id        uuid NOT NULL UNIQUE,
  body_hash          bytea NOT NULL CHECK (octet_length(body_hash) = 16),
  state              text NOT NULL CHECK (state IN ('HOLDING', 'REQUESTED', 'APPROVED', 'PAID', 'REJECTED', 'FAILED')),
  outcome            text CHECK (outcome IN ('PAID', 'REJECTED', 'FAILED')),
  reason             text NOT NULL DEFAULT '' CHECK (char_length(reason) <= 256),
  decided_by         uuid,
  decide_request_id  uuid,
  decide_hash        bytea CHECK (octet_length(decide_hash) = 16),
  payout_id          text NOT NULL DEFAULT '' CHECK (char_length(payout_id) <= 128),
  submit_time        timestamptz,
  attempt_count      integer NOT NULL DEFAULT 0,
  next_time          timestamptz,
  version            bigint NOT NULL DEFAULT 0,
  create_time        timestamptz NOT NULL,
  update_time        timestamptz NOT NULL,
  CONSTRAINT withdrawals_are_decided_by_others CHECK (decided_by IS NULL OR decided_by <> user_id),
  CONSTRAINT withdrawals_have_a_decision
    CHECK ((state IN ('HOLDING', 'REQUESTED') AND outcome IS NULL) = (decided_by IS NULL)),
  CONSTRAINT withdrawals_end_as_they_must
    CHECK (state IN ('HOLDING', 'REQUESTED', 'APPROVED') OR coalesce(state = outcome, false)),
  CONSTRAINT withdrawals_are_submitted_when_approved
    CHECK (submit_time IS NULL OR state IN ('APPROVED', 'PAID', 'FAILED'))
);
CREATE INDEX withdrawals_of_tenant ON ledger.withdrawals (tenant_id, create_time DESC, withdrawal_id DESC);
CREATE INDEX withdrawals_of_person ON ledger.withdrawals (user_id, create_time DESC, withdrawal_id DESC);
CREATE INDEX withdrawals_to_do ON ledger.withdrawals (next_time) WHERE next_time IS NOT NULL;
CREATE UNIQUE INDEX withdrawals_decided_once ON ledger.withdrawals (tenant_id, decide_request_id)
  WHERE decide_request_id IS NOT NULL;

CREATE FUNCTION ledger.check_withdrawal() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF OLD.state = 'HOLDING' AND NOT EXISTS (SELECT 1 FROM ledger.transfers t WHERE t.transfer_id = OLD.transfer_id) THEN
      RETURN OLD;
    END IF;
    RAISE EXCEPTION 'withdrawal % is kept', OLD.withdrawal_id USING ERRCODE = 'WL006';
  END IF;
  IF OLD.outcome IS NOT NULL AND NEW.outcome IS DISTINCT FROM OLD.outcome THEN
    RAISE EXCEPTION 'withdrawal % is decided', OLD.withdrawal_id USING ERRCODE = 'WL006';
  END IF;
  IF NEW.state = OLD.state THEN RETURN NEW; END IF;
  IF (OLD.state, NEW.state) NOT IN (('HOLDING', 'REQUESTED'), ('REQUESTED', 'APPROVED'), ('REQUESTED', 'REJECTED'),
      ('APPROVED', 'PAID'), ('APPROVED', 'FAILED')) OR NEW.version <> OLD.version + 1 THEN
    RAISE EXCEPTION 'withdrawal % does not go from % to %', OLD.withdrawal_id, OLD.state, NEW.state
      USING ERRCODE = 'WL006';
  END IF;
  IF NEW.state = 'REQUESTED' AND NOT EXISTS (SELECT 1 FROM ledger.transfers t
      WHERE t.transfer_id = NEW.transfer_id AND t.phase = 'PENDING' AND t.tenant_id = NEW.tenant_id
        AND t.amount_minor = NEW.amount_minor AND t.currency_code = NEW.currency_code) THEN
    RAISE EXCEPTION 'withdrawal % holds nothing', OLD.withdrawal_id USING ERRCODE = 'WL006';
  END IF;
  IF NEW.state IN ('PAID', 'REJECTED', 'FAILED') AND NOT EXISTS (SELECT 1 FROM ledger.transfers t
      WHERE t.pending_id = NEW.transfer_id AND (t.phase = 'POST') = (NEW.state = 'PAID')
        AND (t.phase <> 'POST' OR t.amount_minor = NEW.amount_minor)) THEN
    RAISE EXCEPTION 'the amount of withdrawal % did not follow', OLD.withdrawal_id USING ERRCODE = 'WL006';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER withdrawals_keep_their_order BEFORE UPDATE OR DELETE ON ledger.withdrawals
  FOR EACH ROW EXECUTE FUNCTION ledger.check_withdrawal();
CREATE TRIGGER withdrawals_are_kept BEFORE TRUNCATE ON ledger.withdrawals
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.withdrawals ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.withdrawals FORCE ROW LEVEL SECURITY;
CREATE POLICY person_sees_own ON ledger.withdrawals FOR SELECT
  USING (tenant_id = (SELECT ledger.current_tenant()) AND user_id = (SELECT ledger.current_person()));
CREATE POLICY own_tenant ON ledger.withdrawals
  USING (tenant_id = (SELECT ledger.current_tenant()) AND (SELECT ledger.sees_all()));
-- Workers, over all tenants: what there is to do, and requests that held nothing.
CREATE POLICY sweeper_finds_work ON ledger.withdrawals FOR SELECT USING ((SELECT ledger.is_sweeper()));
CREATE POLICY sweeper_claims ON ledger.withdrawals FOR UPDATE USING ((SELECT ledger.is_sweeper()));
CREATE POLICY sweeper_forgets ON ledger.withdrawals FOR DELETE USING ((SELECT ledger.is_sweeper()) AND state = 'HOLDING');

-- What is remembered of each person, of bounded size: when they moved money last, and how much.
CREATE TABLE ledger.fraud_profiles (
  tenant_id uuid NOT NULL,
  user_id   uuid NOT NULL,
  profile   jsonb NOT NULL,
  PRIMARY KEY (tenant_id, user_id)
) WITH (fillfactor = 70);

-- One flag per rule, person and window: an hour or a day of UTC.
CREATE TABLE ledger.fraud_flags (
  tenant_id    uuid NOT NULL,
  user_id      uuid NOT NULL,
  rule         text NOT NULL CHECK (rule IN ('TOO_MANY_MOVEMENTS', 'UNUSUAL_AMOUNT', 'DEPOSIT_AND_WITHDRAWAL')),
  window_start timestamptz NOT NULL,
  transfer_id  uuid NOT NULL,
  description  text NOT NULL CHECK (char_length(description) BETWEEN 1 AND 256),
  flag_time    timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, user_id, rule, window_start)
);
CREATE INDEX fraud_flags_newest ON ledger.fraud_flags (tenant_id, flag_time DESC);
CREATE TRIGGER fraud_flags_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.fraud_flags
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

-- How far events are looked at for fraud. Whose turn it is, is an advisory lock: a lock on the row would take a
-- transaction number, and hold up all who read events in the order of commits.
CREATE TABLE ledger.fraud_cursor (
  is_only        boolean PRIMARY KEY DEFAULT true CHECK (is_only),
  transaction_id xid8 NOT NULL,
  event_number   bigint NOT NULL
);
INSERT INTO ledger.fraud_cursor (transaction_id, event_number) VALUES ('0', 0);

ALTER TABLE ledger.fraud_profiles ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.fraud_profiles FORCE ROW LEVEL SECURITY;
ALTER TABLE ledger.fraud_flags ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.fraud_flags FORCE ROW LEVEL SECURITY;
ALTER TABLE ledger.fraud_cursor ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.fraud_cursor FORCE ROW LEVEL SECURITY;
CREATE POLICY sweeper_remembers ON ledger.fraud_profiles USING ((SELECT ledger.is_sweeper()));
CREATE POLICY sweeper_goes_on ON ledger.fraud_cursor USING ((SELECT ledger.is_sweeper()));
CREATE POLICY staff_sees_flags ON ledger.fraud_flags FOR SELECT
  USING (tenant_id = (SELECT ledger.current_tenant()) AND (SELECT ledger.sees_all()));
-- ON CONFLICT looks at what is there.
CREATE POLICY sweeper_sees_flags ON ledger.fraud_flags FOR SELECT USING ((SELECT ledger.is_sweeper()));
CREATE POLICY sweeper_flags ON ledger.fraud_flags FOR INSERT WITH CHECK ((SELECT ledger.is_sweeper()));
CREATE POLICY sweeper_tells_of_flags ON ledger.events FOR INSERT
  WITH CHECK ((SELECT ledger.is_sweeper()) AND aggregate_type = 'fraud');

-- Of a day's transfers and later ones the daily report takes all entries. Rows are written about in the order of this
-- time, so that a few bytes for many pages find them, and inserting costs nothing.
CREATE INDEX transfers_by_time ON ledger.transfers USING brin (create_time) WITH (pages_per_range = 32, autosummarize = on);

REVOKE EXECUTE ON FUNCTION ledger.check_withdrawal() FROM PUBLIC;
GRANT SELECT, DELETE ON ledger.withdrawals TO wayfare_ledger;
GRANT INSERT (withdrawal_id, tenant_id, user_id, currency_code, amount_minor, payout_destination, transfer_id, body_hash,
    state, next_time, create_time, update_time),
  UPDATE (state, outcome, reason, decided_by, decide_request_id, decide_hash, payout_id, submit_time, attempt_count,
    next_time, version, update_time) ON ledger.withdrawals TO wayfare_ledger;
GRANT SELECT, INSERT ON ledger.fraud_flags TO wayfare_ledger;
GRANT SELECT, INSERT, UPDATE ON ledger.fraud_profiles TO wayfare_ledger;
GRANT SELECT, UPDATE (transaction_id, event_number) ON ledger.fraud_cursor TO wayfare_ledger;

-- migrate:down
-- Migrations only go forward.
