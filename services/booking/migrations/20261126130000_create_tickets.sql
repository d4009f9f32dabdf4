-- migrate:up

-- Tickets, the keys that sign them, and what conductors' phones say of them. Whoever uses or revokes tickets of a trip has
-- locked the trip's row: a scan and a cancellation never pass each other.

-- The private key is encrypted with a secret that PostgreSQL does not know. A key signs from sign_start_time to
-- sign_end_time; each tenant has exactly one whose end is open.
CREATE TABLE booking.ticket_keys (
  tenant_id          uuid NOT NULL,
  key_id             text NOT NULL CHECK (key_id ~ '^[0-9a-f]{8}$'),
  resource_id        uuid NOT NULL UNIQUE,
  public_key         bytea NOT NULL CHECK (octet_length(public_key) = 32),
  sealed_private_key bytea NOT NULL,
  sign_start_time    timestamptz NOT NULL,
  sign_end_time      timestamptz,
  create_time        timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, key_id),
  CONSTRAINT ticket_keys_end_after_they_start CHECK (sign_start_time <= sign_end_time)
);
CREATE UNIQUE INDEX ticket_keys_one_is_open ON booking.ticket_keys (tenant_id) WHERE sign_end_time IS NULL;

-- use_…: the boarding scan that counts, the earliest of all. end_time: when the passenger was to get off, as planned.
CREATE TABLE booking.tickets (
  ticket_id       uuid PRIMARY KEY,
  tenant_id       uuid NOT NULL,
  booking_id      uuid NOT NULL,
  booking_code    text NOT NULL CHECK (char_length(booking_code) BETWEEN 1 AND 16),
  trip_id         uuid NOT NULL,
  passenger_id    uuid NOT NULL,
  user_id         uuid NOT NULL,
  seat_number     text NOT NULL CHECK (char_length(seat_number) BETWEEN 1 AND 8),
  from_stop_index smallint NOT NULL CHECK (from_stop_index >= 0),
  to_stop_index   smallint NOT NULL CHECK (to_stop_index <= 63),
  key_id          text NOT NULL,
  code            bytea NOT NULL CHECK (octet_length(code) = 124),
  cash_due_minor  bigint NOT NULL CHECK (cash_due_minor >= 0),
  currency_code   text NOT NULL CHECK (currency_code ~ '^[A-Z]{3}$'),
  issue_time      timestamptz NOT NULL,
  end_time        timestamptz NOT NULL,
  revoke_time     timestamptz,
  use_scan_id     uuid,
  use_device_id   text,
  use_stop_index  smallint,
  use_time        timestamptz,
  CONSTRAINT tickets_lead_forward CHECK (from_stop_index < to_stop_index),
  CONSTRAINT tickets_are_of_a_trip FOREIGN KEY (trip_id, tenant_id) REFERENCES booking.trips (trip_id, tenant_id),
  CONSTRAINT tickets_are_signed FOREIGN KEY (tenant_id, key_id) REFERENCES booking.ticket_keys (tenant_id, key_id),
  CONSTRAINT tickets_are_used_whole CHECK (num_nonnulls(use_scan_id, use_device_id, use_stop_index, use_time) IN (0, 4))
) WITH (fillfactor = 80);
-- A passenger has one good ticket.
CREATE UNIQUE INDEX tickets_one_good_one ON booking.tickets (passenger_id) WHERE revoke_time IS NULL;
CREATE INDEX tickets_of_trip ON booking.tickets (trip_id, from_stop_index, seat_number, ticket_id) WHERE revoke_time IS NULL;
CREATE INDEX tickets_of_booking ON booking.tickets (booking_id);
CREATE INDEX tickets_of_key ON booking.tickets (tenant_id, key_id, end_time);

-- Read in the order (transaction_id, revocation_number), as far as every transaction before has ended: so that a phone
-- that asks for what is new never misses one that was committed late.
CREATE TABLE booking.ticket_revocations (
  ticket_id         uuid PRIMARY KEY REFERENCES booking.tickets (ticket_id),
  tenant_id         uuid NOT NULL,
  trip_id           uuid NOT NULL,
  end_time          timestamptz NOT NULL,
  revoke_time       timestamptz NOT NULL,
  transaction_id    xid8 NOT NULL DEFAULT pg_current_xact_id(),
  revocation_number bigint GENERATED ALWAYS AS IDENTITY
);
CREATE INDEX ticket_revocations_in_order ON booking.ticket_revocations (tenant_id, transaction_id, revocation_number);
CREATE INDEX ticket_revocations_of_trip ON booking.ticket_revocations (trip_id, transaction_id, revocation_number);

-- What phones saw. lets_on: the phone let the passenger on if the code was good; it did not when it had no network and
-- decided otherwise. `reason` is why the code itself was not good at that time, '' when it was; whether another scan was
-- earlier stands in the ticket.
CREATE TABLE booking.scans (
  tenant_id        uuid NOT NULL,
  scan_id          uuid NOT NULL,
  trip_id          uuid NOT NULL,
  ticket_id        uuid,
  user_id          uuid NOT NULL,
  device_id        text NOT NULL CHECK (char_length(device_id) BETWEEN 1 AND 64),
  kind             text NOT NULL CHECK (kind IN ('BOARD', 'CHECK')),
  stop_index       smallint NOT NULL CHECK (stop_index BETWEEN 0 AND 63),
  scan_time        timestamptz NOT NULL,
  lets_on          boolean NOT NULL,
  reason           text NOT NULL CHECK (char_length(reason) <= 64),
  body_hash        bytea NOT NULL CHECK (octet_length(body_hash) = 32),
  create_time      timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, scan_id),
  CONSTRAINT scans_are_of_a_trip FOREIGN KEY (trip_id, tenant_id) REFERENCES booking.trips (trip_id, tenant_id)
);
CREATE INDEX scans_of_ticket ON booking.scans (ticket_id) WHERE ticket_id IS NOT NULL;
CREATE TRIGGER scans_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON booking.scans
  FOR EACH STATEMENT EXECUTE FUNCTION booking.refuse_change();

-- The fare of a booking that a conductor took, once a booking. book_time: when the ledger had it.
CREATE TABLE booking.cash_takings (
  booking_id    uuid PRIMARY KEY,
  tenant_id     uuid NOT NULL,
  ticket_id     uuid NOT NULL REFERENCES booking.tickets (ticket_id),
  scan_id       uuid NOT NULL,
  user_id       uuid NOT NULL,
  amount_minor  bigint NOT NULL CHECK (amount_minor > 0),
  currency_code text NOT NULL,
  take_time     timestamptz NOT NULL,
  book_time     timestamptz
);
CREATE INDEX cash_takings_to_book ON booking.cash_takings (take_time) WHERE book_time IS NULL;

-- Marks by hand, the latest of a passenger; between it and the scan the later one counts.
CREATE TABLE booking.boarding_marks (
  trip_id      uuid NOT NULL,
  passenger_id uuid NOT NULL,
  tenant_id    uuid NOT NULL,
  user_id      uuid NOT NULL,
  state        text NOT NULL CHECK (state IN ('BOARDED', 'NO_SHOW', 'ALIGHTED')),
  mark_time    timestamptz NOT NULL,
  PRIMARY KEY (trip_id, passenger_id),
  CONSTRAINT boarding_marks_are_of_a_trip FOREIGN KEY (trip_id, tenant_id) REFERENCES booking.trips (trip_id, tenant_id)
);

-- How many are on board, as it was told last.
CREATE TABLE booking.boardings (
  trip_id        uuid PRIMARY KEY,
  tenant_id      uuid NOT NULL,
  stop_index     smallint NOT NULL,
  stop_time      timestamptz NOT NULL,
  unbooked_count integer NOT NULL CHECK (unbooked_count BETWEEN 0 AND 1000),
  boarded_count  integer NOT NULL,
  expected_count integer NOT NULL,
  no_show_count  integer NOT NULL,
  count_time     timestamptz NOT NULL,
  CONSTRAINT boardings_are_of_a_trip FOREIGN KEY (trip_id, tenant_id) REFERENCES booking.trips (trip_id, tenant_id)
) WITH (fillfactor = 50);

ALTER TABLE booking.ticket_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.ticket_keys FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.tickets ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.tickets FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.ticket_revocations ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.ticket_revocations FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.scans ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.scans FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.cash_takings ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.cash_takings FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.boarding_marks ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.boarding_marks FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.boardings ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.boardings FORCE ROW LEVEL SECURITY;

-- A person sees their own tickets; keys, scans and counts are the service's own work.
CREATE POLICY own_tenant ON booking.ticket_keys
  USING (tenant_id = (SELECT booking.current_tenant()) AND (SELECT booking.sees_all()));
CREATE POLICY own_tenant ON booking.tickets
  USING (tenant_id = (SELECT booking.current_tenant())
    AND ((SELECT booking.sees_all()) OR user_id = (SELECT booking.current_person())));
CREATE POLICY own_tenant ON booking.ticket_revocations
  USING (tenant_id = (SELECT booking.current_tenant()) AND (SELECT booking.sees_all()));
CREATE POLICY own_tenant ON booking.scans
  USING (tenant_id = (SELECT booking.current_tenant()) AND (SELECT booking.sees_all()));
CREATE POLICY own_tenant ON booking.cash_takings
  USING (tenant_id = (SELECT booking.current_tenant()) AND (SELECT booking.sees_all()));
CREATE POLICY own_tenant ON booking.boarding_marks
  USING (tenant_id = (SELECT booking.current_tenant()) AND (SELECT booking.sees_all()));
CREATE POLICY own_tenant ON booking.boardings
  USING (tenant_id = (SELECT booking.current_tenant()) AND (SELECT booking.sees_all()));
-- Work over all tenants: entering the cash that was taken into the ledger.
CREATE POLICY sweeper_books_cash ON booking.cash_takings FOR SELECT
  USING ((SELECT booking.is_sweeper()));

GRANT SELECT, INSERT, UPDATE (sign_end_time) ON booking.ticket_keys TO wayfare_booking;
GRANT SELECT, UPDATE (revoke_time, use_scan_id, use_device_id, use_stop_index, use_time) ON booking.tickets TO wayfare_booking;
GRANT INSERT (ticket_id, tenant_id, booking_id, booking_code, trip_id, passenger_id, user_id, seat_number, from_stop_index,
  to_stop_index, key_id, code, cash_due_minor, currency_code, issue_time, end_time) ON booking.tickets TO wayfare_booking;
GRANT SELECT, INSERT (ticket_id, tenant_id, trip_id, end_time, revoke_time) ON booking.ticket_revocations TO wayfare_booking;
GRANT SELECT, INSERT ON booking.scans TO wayfare_booking;
GRANT SELECT, INSERT, UPDATE (book_time) ON booking.cash_takings TO wayfare_booking;
GRANT SELECT, INSERT, UPDATE (user_id, state, mark_time) ON booking.boarding_marks TO wayfare_booking;
GRANT SELECT, INSERT, UPDATE (stop_index, stop_time, unbooked_count, boarded_count, expected_count, no_show_count, count_time)
  ON booking.boardings TO wayfare_booking;

-- migrate:down
-- Migrations only go forward.
