-- migrate:up

-- LocationService takes BookingService's events: who drives a scheduled trip and who may follow it. What is known of a trip
-- is kept here from the day it is made, since tracking begins only when vehicle and driver are known.

CREATE TABLE location.booked_trips (
  trip_id        uuid PRIMARY KEY,
  tenant_id      uuid NOT NULL,
  -- wayfare.booking.v1.Trip as its last event told it; NULL while only passengers are known.
  trip           bytea,
  capacity_count integer NOT NULL DEFAULT 0 CHECK (capacity_count >= 0),
  expected_count integer NOT NULL DEFAULT 0 CHECK (expected_count >= 0),
  is_cancelled   boolean NOT NULL DEFAULT false
);

CREATE TABLE location.booked_passengers (
  trip_id   uuid NOT NULL,
  user_id   uuid NOT NULL,
  tenant_id uuid NOT NULL,
  PRIMARY KEY (trip_id, user_id)
);

-- How far each consumer has read each partition of a service's events; a row's lock is the turn.
CREATE TABLE location.event_positions (
  consumer  text NOT NULL CHECK (char_length(consumer) BETWEEN 1 AND 64),
  source    text NOT NULL CHECK (char_length(source) BETWEEN 1 AND 64),
  partition smallint NOT NULL,
  stream_id text NOT NULL DEFAULT '0-0',
  PRIMARY KEY (consumer, source, partition)
);

-- What each consumer has taken, so that what comes twice takes effect once. Entries are deleted
-- when they are older than anything that can come again.
CREATE TABLE location.event_inbox (
  consumer    text NOT NULL,
  event_id    uuid NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (consumer, event_id)
);
CREATE INDEX event_inbox_oldest ON location.event_inbox (create_time);

-- What could not be handled and waits for another try, what waits behind it, and the dead letters.
CREATE TABLE location.event_failures (
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
CREATE INDEX event_failures_waiting ON location.event_failures (consumer, aggregate, failure_id)
  WHERE dead_time IS NULL;

-- What people did with dead letters, and why.
CREATE TABLE location.dead_letter_audit (
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

CREATE FUNCTION location.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
  RAISE EXCEPTION 'what is recorded is immutable: % of % is refused', TG_OP, TG_TABLE_NAME USING ERRCODE = 'WO001';
END $$;
REVOKE EXECUTE ON FUNCTION location.refuse_change() FROM PUBLIC;
CREATE TRIGGER dead_letter_audit_is_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON location.dead_letter_audit
  FOR EACH STATEMENT EXECUTE FUNCTION location.refuse_change();

CREATE FUNCTION location.is_sweeper() RETURNS boolean
  LANGUAGE sql STABLE
  RETURN current_setting('app.role', true) = 'SWEEPER';

ALTER TABLE location.booked_trips ENABLE ROW LEVEL SECURITY;
ALTER TABLE location.booked_trips FORCE ROW LEVEL SECURITY;
ALTER TABLE location.booked_passengers ENABLE ROW LEVEL SECURITY;
ALTER TABLE location.booked_passengers FORCE ROW LEVEL SECURITY;
ALTER TABLE location.event_positions ENABLE ROW LEVEL SECURITY;
ALTER TABLE location.event_positions FORCE ROW LEVEL SECURITY;
ALTER TABLE location.event_inbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE location.event_inbox FORCE ROW LEVEL SECURITY;
ALTER TABLE location.event_failures ENABLE ROW LEVEL SECURITY;
ALTER TABLE location.event_failures FORCE ROW LEVEL SECURITY;
ALTER TABLE location.dead_letter_audit ENABLE ROW LEVEL SECURITY;
ALTER TABLE location.dead_letter_audit FORCE ROW LEVEL SECURITY;

CREATE POLICY tenant_only ON location.booked_trips TO wayfare_location
  USING (tenant_id = (SELECT location.current_tenant()))
  WITH CHECK (tenant_id = (SELECT location.current_tenant()));
CREATE POLICY tenant_only ON location.booked_passengers TO wayfare_location
  USING (tenant_id = (SELECT location.current_tenant()))
  WITH CHECK (tenant_id = (SELECT location.current_tenant()));
-- Events of all tenants are taken together, by nobody's request.
CREATE POLICY sweeper_consumes ON location.event_positions USING ((SELECT location.is_sweeper()));
CREATE POLICY sweeper_consumes ON location.event_inbox USING ((SELECT location.is_sweeper()));
CREATE POLICY sweeper_consumes ON location.event_failures USING ((SELECT location.is_sweeper()));
-- Only for whoever administers the database, with `wayfare dlq`: the service's role has no grant.
CREATE POLICY sweeper_audits ON location.dead_letter_audit USING ((SELECT location.is_sweeper()));

GRANT SELECT, INSERT, UPDATE ON location.booked_trips TO wayfare_location;
GRANT SELECT, INSERT, DELETE ON location.booked_passengers TO wayfare_location;
GRANT SELECT, INSERT, UPDATE ON location.event_positions TO wayfare_location;
GRANT SELECT, INSERT, DELETE ON location.event_inbox TO wayfare_location;
GRANT SELECT, INSERT, UPDATE, DELETE ON location.event_failures TO wayfare_location;

-- migrate:down
-- Migrations only go forward.
