-- migrate:up

-- LedgerService takes the events of others, and its own. The tables are those of `services/shared/events`.

-- How far each consumer has read each partition of a service's events; a row's lock is the turn.
CREATE TABLE ledger.event_positions (
  consumer  text NOT NULL CHECK (char_length(consumer) BETWEEN 1 AND 64),
  source    text NOT NULL CHECK (char_length(source) BETWEEN 1 AND 64),
  partition smallint NOT NULL,
  stream_id text NOT NULL DEFAULT '0-0',
  PRIMARY KEY (consumer, source, partition)
);

-- What each consumer has taken, so that what comes twice takes effect once. Entries are deleted
-- when they are older than anything that can come again.
CREATE TABLE ledger.event_inbox (
  consumer    text NOT NULL,
  event_id    uuid NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (consumer, event_id)
);
CREATE INDEX event_inbox_oldest ON ledger.event_inbox (create_time);

-- What could not be handled and waits for another try, what waits behind it, and the dead letters.
CREATE TABLE ledger.event_failures (
  failure_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  consumer      text NOT NULL,
  event_id      uuid NOT NULL,
  aggregate     text NOT NULL,
  envelope      bytea NOT NULL,
  attempt_count integer NOT NULL,
  error         text NOT NULL,
  next_time     timestamptz NOT NULL,
  create_time   timestamptz NOT NULL DEFAULT now(),
  dead_time     timestamptz,
  UNIQUE (consumer, event_id)
);
CREATE INDEX event_failures_waiting ON ledger.event_failures (consumer, aggregate, failure_id)
  WHERE dead_time IS NULL;

-- What people did with dead letters, and why.
CREATE TABLE ledger.dead_letter_audit (
  audit_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  action      text NOT NULL CHECK (action IN ('RETRY', 'DROP')),
  consumer    text NOT NULL,
  event_id    uuid NOT NULL,
  aggregate   text NOT NULL,
  error       text NOT NULL,
  reason      text NOT NULL CHECK (char_length(reason) <= 500),
  actor       text NOT NULL CHECK (char_length(actor) BETWEEN 1 AND 128),
  create_time timestamptz NOT NULL DEFAULT now(),
  CHECK (action <> 'DROP' OR reason <> '')
);

CREATE TRIGGER dead_letter_audit_is_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.dead_letter_audit
  FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.event_positions ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.event_positions FORCE ROW LEVEL SECURITY;
ALTER TABLE ledger.event_inbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.event_inbox FORCE ROW LEVEL SECURITY;
ALTER TABLE ledger.event_failures ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.event_failures FORCE ROW LEVEL SECURITY;
ALTER TABLE ledger.dead_letter_audit ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.dead_letter_audit FORCE ROW LEVEL SECURITY;

-- Events of all tenants are taken together, by nobody's request.
CREATE POLICY sweeper_consumes ON ledger.event_positions USING ((SELECT ledger.is_sweeper()));
CREATE POLICY sweeper_consumes ON ledger.event_inbox USING ((SELECT ledger.is_sweeper()));
CREATE POLICY sweeper_consumes ON ledger.event_failures USING ((SELECT ledger.is_sweeper()));
-- Only for whoever administers the database, with `wayfare dlq`: the service's role has no grant.
CREATE POLICY sweeper_audits ON ledger.dead_letter_audit USING ((SELECT ledger.is_sweeper()));

GRANT SELECT, INSERT, UPDATE ON ledger.event_positions TO wayfare_ledger;
GRANT SELECT, INSERT, DELETE ON ledger.event_inbox TO wayfare_ledger;
GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.event_failures TO wayfare_ledger;

-- migrate:down
-- Migrations only go forward.
