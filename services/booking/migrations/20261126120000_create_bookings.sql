-- migrate:up

-- Bookings and how they are paid. A row is its own saga: `step` is what is to be done next outside of this database, `next_time` when
-- some process shall look at it. Whoever changes a booking has locked its row; whoever changes its seats too has locked the trip's
-- row before.

-- seats: number, class, price in minor units, passenger and ticket ('-' before it is issued) of each:
-- '12A/STANDARD/4500/0198…/0198… 12B/…'. fees: minutes before departure and basis points of each line: '1440/0 120/2500'. pending_seconds:
-- how long the ledger keeps the money before it lets it go by itself; fixed, because the same transfer has the same content.
CREATE TABLE booking.bookings (
  booking_id        uuid PRIMARY KEY,
  tenant_id         uuid NOT NULL,
  booking_code      text NOT NULL CHECK (booking_code ~ '^[0-9A-HJKMNP-TV-Z]{8}$'),
  trip_id           uuid NOT NULL,
  user_id           uuid NOT NULL,
  hold_id           uuid NOT NULL UNIQUE,
  state             text NOT NULL CHECK (state IN ('PENDING_PAYMENT', 'CONFIRMED', 'CANCELLED', 'PAYMENT_FAILED', 'EXPIRED',
    'CANCELLED_NO_SEAT', 'PAYMENT_RETURNED')),
  payment_method    text NOT NULL CHECK (payment_method IN ('WALLET', 'CASH', 'GATEWAY')),
  payment_state     text NOT NULL CHECK (payment_state IN ('PENDING', 'PAID', 'DUE_ON_BOARD', 'FAILED', 'VOIDED', 'REFUND_PENDING',
    'REFUNDED')),
  step              text NOT NULL CHECK (step IN ('REST', 'DEPOSIT', 'AWAIT', 'RESERVE', 'POST', 'VOID', 'REFUND')),
  attempt           smallint NOT NULL DEFAULT 0,
  is_deposited      boolean NOT NULL DEFAULT false,
  deposit_state     text NOT NULL DEFAULT '' CHECK (deposit_state IN ('', 'SUCCEEDED', 'FAILED')),
  currency_code     text NOT NULL CHECK (currency_code ~ '^[A-Z]{3}$'),
  amount_minor      bigint NOT NULL CHECK (amount_minor >= 0),
  fee_minor         bigint NOT NULL DEFAULT 0 CHECK (fee_minor BETWEEN 0 AND amount_minor),
  refund_minor      bigint NOT NULL DEFAULT 0 CHECK (refund_minor BETWEEN 0 AND amount_minor),
  refunded_minor    bigint NOT NULL DEFAULT 0 CHECK (refunded_minor BETWEEN 0 AND amount_minor),
  seats             text NOT NULL,
  passenger_count   smallint NOT NULL CHECK (passenger_count BETWEEN 1 AND 50),
  from_stop_index   smallint NOT NULL CHECK (from_stop_index >= 0),
  to_stop_index     smallint NOT NULL CHECK (to_stop_index <= 63),
  fees              text NOT NULL,
  gateway           text NOT NULL CHECK (char_length(gateway) <= 32),
  return_url        text NOT NULL CHECK (char_length(return_url) <= 500),
  allow_other_seats boolean NOT NULL,
  is_reseated       boolean NOT NULL DEFAULT false,
  pending_seconds   integer NOT NULL CHECK (pending_seconds > 0),
  deposit_id        uuid,
  checkout          text NOT NULL DEFAULT '',
  failure_reason    text NOT NULL DEFAULT '' CHECK (char_length(failure_reason) <= 64),
  expire_time       timestamptz NOT NULL,
  create_time       timestamptz NOT NULL,
  confirm_time      timestamptz,
  cancel_cause      text CHECK (cancel_cause IN ('PASSENGER', 'OPERATOR', 'TRIP')),
  cancel_reason     text NOT NULL DEFAULT '' CHECK (char_length(cancel_reason) <= 500),
  cancel_time       timestamptz,
  event_version     bigint NOT NULL,
  next_time         timestamptz,
  try_count         integer NOT NULL DEFAULT 0,
  CONSTRAINT bookings_are_of_a_trip FOREIGN KEY (trip_id, tenant_id) REFERENCES booking.trips (trip_id, tenant_id),
  CONSTRAINT bookings_go_forward CHECK (from_stop_index < to_stop_index),
  CONSTRAINT bookings_have_one_code UNIQUE (trip_id, booking_code),
  -- Nobody has both seats and the money back.
  CONSTRAINT bookings_keep_seats_or_money CHECK (state <> 'CONFIRMED' OR refunded_minor = 0)
) WITH (fillfactor = 60);
CREATE INDEX bookings_to_work_on ON booking.bookings (next_time) WHERE next_time IS NOT NULL;
CREATE INDEX bookings_of_trip ON booking.bookings (trip_id, user_id) WHERE state IN ('PENDING_PAYMENT', 'CONFIRMED');
CREATE INDEX bookings_of_user ON booking.bookings (tenant_id, user_id, create_time DESC, booking_id DESC);
CREATE INDEX bookings_newest ON booking.bookings (tenant_id, create_time DESC, booking_id DESC);
CREATE INDEX bookings_newest_of_trip ON booking.bookings (trip_id, create_time DESC, booking_id DESC);

-- A booking's state moves as domain/booking.py says, whoever writes.
CREATE FUNCTION booking.check_booking_move() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
  IF NOT (
    (OLD.state = 'PENDING_PAYMENT')
    OR (OLD.state = 'CONFIRMED' AND NEW.state = 'CANCELLED')
    OR (OLD.state = 'EXPIRED' AND NEW.state IN ('CONFIRMED', 'PAYMENT_RETURNED'))
    OR (OLD.state = 'PAYMENT_FAILED' AND NEW.state = 'PAYMENT_RETURNED')
  ) THEN
    RAISE EXCEPTION 'a booking does not go from % to %', OLD.state, NEW.state USING ERRCODE = 'WB003';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER bookings_move_forward BEFORE UPDATE OF state ON booking.bookings
  FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION booking.check_booking_move();

-- Writes what may change of bookings, from the JSON of store/booking_rows.py. Booking by booking, whatever the planner believes about
-- the size of JSON and tables.
CREATE FUNCTION booking.write_bookings(changed json) RETURNS void LANGUAGE sql SET search_path = ''
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
  UPDATE booking.bookings b SET
    state = n.state,
    payment_state = n.payment_state,
    step = n.step,
    attempt = n.attempt,
    is_deposited = n.is_deposited,
    fee_minor = n.fee_minor,
    refund_minor = n.refund_minor,
    refunded_minor = n.refunded_minor,
    seats = n.seats,
    is_reseated = n.is_reseated,
    deposit_id = n.deposit_id,
    checkout = n.checkout,
    failure_reason = n.failure_reason,
    expire_time = n.expire_time,
    confirm_time = n.confirm_time,
    cancel_cause = n.cancel_cause,
    cancel_reason = n.cancel_reason,
    cancel_time = n.cancel_time,
    event_version = n.event_version,
    next_time = n.next_time,
    try_count = n.try_count
  FROM json_to_recordset(changed) AS n (
    booking_id uuid, state text, payment_state text, step text, attempt smallint, is_deposited boolean, fee_minor bigint,
    refund_minor bigint, refunded_minor bigint, seats text, is_reseated boolean, deposit_id uuid, checkout text,
    failure_reason text, expire_time timestamptz, confirm_time timestamptz, cancel_cause text, cancel_reason text,
    cancel_time timestamptz, event_version bigint, next_time timestamptz, try_count integer)
  WHERE b.booking_id = n.booking_id
$$;

-- What travellers told of themselves, encrypted with a key that PostgreSQL does not know.
CREATE TABLE booking.passengers (
  passenger_id uuid PRIMARY KEY,
  tenant_id    uuid NOT NULL,
  booking_id   uuid NOT NULL,
  sealed       bytea NOT NULL CHECK (octet_length(sealed) BETWEEN 30 AND 2000)
);
CREATE INDEX passengers_of_booking ON booking.passengers (booking_id);

-- Trips that are over, or called off, whose bookings have been looked after.
CREATE TABLE booking.trip_closings (
  trip_id     uuid PRIMARY KEY,
  tenant_id   uuid NOT NULL,
  create_time timestamptz NOT NULL
);
CREATE INDEX trips_by_arrival ON booking.trips (last_arrival_time);
CREATE INDEX trips_by_cancellation ON booking.trips (cancel_time) WHERE cancel_time IS NOT NULL;

-- How far each consumer has read each partition of a service's events; a row's lock is the turn.
CREATE TABLE booking.event_positions (
  consumer  text NOT NULL CHECK (char_length(consumer) BETWEEN 1 AND 64),
  source    text NOT NULL CHECK (char_length(source) BETWEEN 1 AND 64),
  partition smallint NOT NULL,
  stream_id text NOT NULL DEFAULT '0-0',
  PRIMARY KEY (consumer, source, partition)
);

-- What each consumer has taken, so that what comes twice takes effect once. Entries are deleted
-- when they are older than anything that can come again.
CREATE TABLE booking.event_inbox (
  consumer    text NOT NULL,
  event_id    uuid NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (consumer, event_id)
);
CREATE INDEX event_inbox_oldest ON booking.event_inbox (create_time);

-- What could not be handled and waits for another try, what waits behind it, and the dead letters.
CREATE TABLE booking.event_failures (
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
CREATE INDEX event_failures_waiting ON booking.event_failures (consumer, aggregate, failure_id)
  WHERE dead_time IS NULL;

-- What people did with dead letters, and why.
CREATE TABLE booking.dead_letter_audit (
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
CREATE TRIGGER dead_letter_audit_is_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON booking.dead_letter_audit
  FOR EACH STATEMENT EXECUTE FUNCTION booking.refuse_change();

ALTER TABLE booking.bookings ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.bookings FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.passengers ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.passengers FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.trip_closings ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.trip_closings FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.event_positions ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.event_positions FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.event_inbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.event_inbox FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.event_failures ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.event_failures FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.dead_letter_audit ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.dead_letter_audit FORCE ROW LEVEL SECURITY;

-- A person sees their own bookings.
CREATE POLICY own_tenant ON booking.bookings
  USING (tenant_id = (SELECT booking.current_tenant())
    AND ((SELECT booking.sees_all()) OR user_id = (SELECT booking.current_person())));
CREATE POLICY own_tenant ON booking.passengers
  USING (tenant_id = (SELECT booking.current_tenant()) AND (SELECT booking.sees_all()));
CREATE POLICY own_tenant ON booking.trip_closings
  USING (tenant_id = (SELECT booking.current_tenant()) AND (SELECT booking.sees_all()));
-- Work over all tenants: what is due, trips that are over, and events.
CREATE POLICY sweeper_takes_bookings ON booking.bookings FOR SELECT USING ((SELECT booking.is_sweeper()));
CREATE POLICY sweeper_leases_bookings ON booking.bookings FOR UPDATE USING ((SELECT booking.is_sweeper()));
CREATE POLICY sweeper_sees_trips ON booking.trips FOR SELECT USING ((SELECT booking.is_sweeper()));
CREATE POLICY sweeper_sees_closings ON booking.trip_closings FOR SELECT USING ((SELECT booking.is_sweeper()));
CREATE POLICY sweeper_consumes ON booking.event_positions USING ((SELECT booking.is_sweeper()));
CREATE POLICY sweeper_consumes ON booking.event_inbox USING ((SELECT booking.is_sweeper()));
CREATE POLICY sweeper_consumes ON booking.event_failures USING ((SELECT booking.is_sweeper()));
-- Only for whoever administers the database, with `wayfare dlq`: the service's role has no grant.
CREATE POLICY sweeper_audits ON booking.dead_letter_audit USING ((SELECT booking.is_sweeper()));

REVOKE EXECUTE ON FUNCTION booking.check_booking_move(), booking.write_bookings(json) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION booking.write_bookings(json) TO wayfare_booking;
GRANT SELECT, INSERT ON booking.bookings TO wayfare_booking;
GRANT UPDATE (state, payment_state, step, attempt, is_deposited, deposit_state, fee_minor, refund_minor, refunded_minor, seats,
  is_reseated, deposit_id, checkout, failure_reason, expire_time, confirm_time, cancel_cause, cancel_reason, cancel_time, event_version,
  next_time, try_count) ON booking.bookings TO wayfare_booking;
GRANT SELECT, INSERT ON booking.passengers TO wayfare_booking;
GRANT SELECT, INSERT ON booking.trip_closings TO wayfare_booking;
GRANT SELECT, INSERT, UPDATE ON booking.event_positions TO wayfare_booking;
GRANT SELECT, INSERT, DELETE ON booking.event_inbox TO wayfare_booking;
GRANT SELECT, INSERT, UPDATE, DELETE ON booking.event_failures TO wayfare_booking;

-- migrate:down
-- Migrations only go forward.
