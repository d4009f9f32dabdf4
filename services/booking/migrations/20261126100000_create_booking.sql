-- migrate:up

-- Trips and what they are sold from. Stop 0 is a trip's first; leg i leads from stop i to stop i + 1. A trip's row is also
-- the turn of whoever changes its seats: they lock it FOR NO KEY UPDATE, trips in the order of their ids.

CREATE SCHEMA booking;
GRANT USAGE ON SCHEMA booking TO wayfare_booking;

CREATE FUNCTION booking.current_tenant() RETURNS uuid
  LANGUAGE sql STABLE
  RETURN NULLIF(current_setting('app.tenant_id', true), '')::uuid;

CREATE FUNCTION booking.current_person() RETURNS uuid
  LANGUAGE sql STABLE
  RETURN NULLIF(current_setting('app.user_id', true), '')::uuid;

-- The whole tenant is seen by the service's own work and by the operator's staff; a person sees what is theirs.
CREATE FUNCTION booking.sees_all() RETURNS boolean
  LANGUAGE sql STABLE
  RETURN current_setting('app.role', true) IN ('SERVICE', 'ADMIN', 'BUSINESS');

CREATE FUNCTION booking.is_sweeper() RETURNS boolean
  LANGUAGE sql STABLE
  RETURN current_setting('app.role', true) = 'SWEEPER';

CREATE FUNCTION booking.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
  RAISE EXCEPTION 'what is recorded is immutable: % of % is refused', TG_OP, TG_TABLE_NAME USING ERRCODE = 'WB001';
END $$;

-- A layout never changes: trips that were sold with it must stay what they were.
CREATE TABLE booking.seat_layouts (
  seat_layout_id uuid PRIMARY KEY,
  tenant_id      uuid NOT NULL,
  display_name   text NOT NULL CHECK (char_length(display_name) BETWEEN 1 AND 100),
  vehicle_class  text NOT NULL CHECK (char_length(vehicle_class) BETWEEN 1 AND 32),
  seat_classes   jsonb NOT NULL,
  decks          jsonb NOT NULL,
  seat_count     smallint NOT NULL CHECK (seat_count BETWEEN 1 AND 400),
  create_time    timestamptz NOT NULL,
  CONSTRAINT seat_layouts_of_a_tenant UNIQUE (seat_layout_id, tenant_id)
);
CREATE INDEX seat_layouts_newest ON booking.seat_layouts (tenant_id, create_time DESC, seat_layout_id DESC);
CREATE TRIGGER seat_layouts_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON booking.seat_layouts
  FOR EACH STATEMENT EXECUTE FUNCTION booking.refuse_change();

-- seat_version counts the changes of its seats, event_version the events of the aggregate `trip`: both are only counted
-- up under the lock of the row. first_departure, last_departure (from the last stop but one) and last_arrival are those of
-- its stops.
CREATE TABLE booking.trips (
  trip_id              uuid PRIMARY KEY,
  tenant_id            uuid NOT NULL,
  seat_layout_id       uuid NOT NULL,
  display_name         text NOT NULL CHECK (char_length(display_name) BETWEEN 1 AND 100),
  vehicle_class        text NOT NULL CHECK (char_length(vehicle_class) BETWEEN 1 AND 32),
  vehicle_id           text NOT NULL CHECK (char_length(vehicle_id) <= 64),
  driver_id            uuid,
  conductor_ids        uuid[] NOT NULL,
  currency_code        text NOT NULL CHECK (currency_code ~ '^[A-Z]{3}$'),
  fares                jsonb NOT NULL,
  terms                jsonb NOT NULL,
  time_zone            text NOT NULL CHECK (char_length(time_zone) BETWEEN 1 AND 64),
  timetable_trip_id    text NOT NULL CHECK (char_length(timetable_trip_id) <= 128),
  service_date         date,
  stop_count           smallint NOT NULL CHECK (stop_count BETWEEN 2 AND 64),
  first_departure_time timestamptz NOT NULL,
  last_departure_time  timestamptz NOT NULL,
  last_arrival_time    timestamptz NOT NULL,
  seat_version         bigint NOT NULL DEFAULT 0,
  event_version        bigint NOT NULL DEFAULT 0,
  cancel_time          timestamptz,
  cancel_reason        text NOT NULL DEFAULT '' CHECK (char_length(cancel_reason) <= 500),
  create_time          timestamptz NOT NULL,
  update_time          timestamptz NOT NULL,
  CONSTRAINT trips_of_a_tenant UNIQUE (trip_id, tenant_id),
  CONSTRAINT trips_have_a_layout FOREIGN KEY (seat_layout_id, tenant_id)
    REFERENCES booking.seat_layouts (seat_layout_id, tenant_id),
  CONSTRAINT trips_go_forward CHECK (first_departure_time <= last_departure_time AND last_departure_time <= last_arrival_time),
  CONSTRAINT trips_from_a_timetable_have_a_date CHECK (timetable_trip_id = '' OR service_date IS NOT NULL)
) WITH (fillfactor = 50);
CREATE INDEX trips_by_departure ON booking.trips (tenant_id, first_departure_time, trip_id);

-- departure_date is the day in the trip's time zone, so that a search of a day reads that day alone.
CREATE TABLE booking.trip_stops (
  trip_id        uuid NOT NULL,
  stop_index     smallint NOT NULL CHECK (stop_index BETWEEN 0 AND 63),
  tenant_id      uuid NOT NULL,
  stop_id        text NOT NULL CHECK (char_length(stop_id) BETWEEN 1 AND 128),
  display_name   text NOT NULL CHECK (char_length(display_name) BETWEEN 1 AND 200),
  latitude       double precision NOT NULL CHECK (latitude BETWEEN -90 AND 90),
  longitude      double precision NOT NULL CHECK (longitude BETWEEN -180 AND 180),
  arrival_time   timestamptz NOT NULL,
  departure_time timestamptz NOT NULL,
  departure_date date NOT NULL,
  no_pickup      boolean NOT NULL,
  no_drop_off    boolean NOT NULL,
  platform       text NOT NULL CHECK (char_length(platform) <= 100),
  PRIMARY KEY (trip_id, stop_index),
  CONSTRAINT trip_stops_of_a_trip FOREIGN KEY (trip_id, tenant_id) REFERENCES booking.trips (trip_id, tenant_id),
  CONSTRAINT trip_stops_leave_after_they_arrive CHECK (arrival_time <= departure_time)
);
CREATE INDEX trip_stops_by_name ON booking.trip_stops (tenant_id, departure_date, stop_id, departure_time, trip_id)
  WHERE NOT no_pickup;
CREATE INDEX trip_stops_by_place ON booking.trip_stops (tenant_id, departure_date, latitude, longitude)
  WHERE NOT no_pickup;

-- Who drives and who checks tickets, by person. departure_time is that of the trip's first stop.
CREATE TABLE booking.trip_crew (
  user_id        uuid NOT NULL,
  trip_id        uuid NOT NULL,
  tenant_id      uuid NOT NULL,
  departure_time timestamptz NOT NULL,
  PRIMARY KEY (trip_id, user_id),
  CONSTRAINT trip_crew_of_a_trip FOREIGN KEY (trip_id, tenant_id) REFERENCES booking.trips (trip_id, tenant_id)
);
CREATE INDEX trip_crew_by_departure ON booking.trip_crew (tenant_id, user_id, departure_time, trip_id);

-- What each request_id did, written with it: the same call again finds it.
CREATE TABLE booking.requests (
  tenant_id   uuid NOT NULL,
  caller_id   text NOT NULL CHECK (char_length(caller_id) BETWEEN 1 AND 128),
  method      text NOT NULL CHECK (char_length(method) BETWEEN 1 AND 64),
  request_id  uuid NOT NULL,
  body_hash   bytea NOT NULL CHECK (octet_length(body_hash) = 32),
  resource_id uuid NOT NULL,
  create_time timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, caller_id, method, request_id)
);
CREATE INDEX requests_oldest ON booking.requests (create_time);

-- What happened, in the same transaction as it happened: the store of events per aggregate, without
-- gaps, and what is published from it. `services/shared/events` reads and writes it.
CREATE TABLE booking.events (
  aggregate_type    text NOT NULL CHECK (char_length(aggregate_type) BETWEEN 1 AND 64),
  aggregate_id      text NOT NULL CHECK (char_length(aggregate_id) BETWEEN 1 AND 128),
  aggregate_version bigint NOT NULL CHECK (aggregate_version >= 1),
  tenant_id         uuid NOT NULL,
  envelope          bytea NOT NULL,
  transaction_id    xid8 NOT NULL DEFAULT pg_current_xact_id(),
  event_number      bigint GENERATED ALWAYS AS IDENTITY,
  PRIMARY KEY (aggregate_type, aggregate_id, aggregate_version)
);
CREATE INDEX events_in_order ON booking.events (transaction_id, event_number);

-- How far events are published; one row, whose lock is the turn to publish.
CREATE TABLE booking.event_cursor (
  is_only        boolean PRIMARY KEY DEFAULT true CHECK (is_only),
  transaction_id xid8 NOT NULL,
  event_number   bigint NOT NULL
);
INSERT INTO booking.event_cursor (transaction_id, event_number) VALUES ('0', 0);

-- What Valkey answered last, of each of its streams: a Valkey that has less lost something.
ALTER TABLE booking.event_cursor ADD COLUMN stream_ids text[] NOT NULL DEFAULT '{}';
CREATE TRIGGER events_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON booking.events
  FOR EACH STATEMENT EXECUTE FUNCTION booking.refuse_change();

ALTER TABLE booking.seat_layouts ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.seat_layouts FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.trips ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.trips FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.trip_stops ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.trip_stops FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.trip_crew ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.trip_crew FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.requests ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.requests FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.events ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.events FORCE ROW LEVEL SECURITY;
ALTER TABLE booking.event_cursor ENABLE ROW LEVEL SECURITY;
ALTER TABLE booking.event_cursor FORCE ROW LEVEL SECURITY;

-- The subqueries make PostgreSQL ask for the tenant once a statement, not once a row. Trips are for everybody of the
-- tenant to find; who is their crew, what was asked and what happened are not.
CREATE POLICY own_tenant ON booking.seat_layouts
  USING (tenant_id = (SELECT booking.current_tenant()));
CREATE POLICY own_tenant ON booking.trips
  USING (tenant_id = (SELECT booking.current_tenant()));
CREATE POLICY own_tenant ON booking.trip_stops
  USING (tenant_id = (SELECT booking.current_tenant()));
CREATE POLICY own_tenant ON booking.trip_crew
  USING (tenant_id = (SELECT booking.current_tenant())
    AND ((SELECT booking.sees_all()) OR user_id = (SELECT booking.current_person())));
CREATE POLICY own_tenant ON booking.requests
  USING (tenant_id = (SELECT booking.current_tenant()) AND (SELECT booking.sees_all()));
CREATE POLICY own_tenant ON booking.events
  USING (tenant_id = (SELECT booking.current_tenant()) AND (SELECT booking.sees_all()));

-- Work over all tenants: publishing events, and forgetting old request ids.
CREATE POLICY sweeper_sees_events ON booking.events FOR SELECT
  USING ((SELECT booking.is_sweeper()));
CREATE POLICY sweeper_publishes ON booking.event_cursor
  USING ((SELECT booking.is_sweeper()));
CREATE POLICY sweeper_sees_requests ON booking.requests FOR SELECT
  USING ((SELECT booking.is_sweeper()));
CREATE POLICY sweeper_forgets_requests ON booking.requests FOR DELETE
  USING ((SELECT booking.is_sweeper()));

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA booking FROM PUBLIC;
GRANT EXECUTE ON FUNCTION booking.current_tenant(), booking.current_person(), booking.sees_all(), booking.is_sweeper()
  TO wayfare_booking;
GRANT SELECT, INSERT ON booking.seat_layouts TO wayfare_booking;
GRANT SELECT, INSERT ON booking.trips TO wayfare_booking;
GRANT UPDATE (display_name, vehicle_id, driver_id, conductor_ids, currency_code, fares, terms, first_departure_time,
  last_departure_time, last_arrival_time, seat_version, event_version, cancel_time, cancel_reason, update_time)
  ON booking.trips TO wayfare_booking;
GRANT SELECT, INSERT ON booking.trip_stops TO wayfare_booking;
GRANT UPDATE (display_name, latitude, longitude, arrival_time, departure_time, departure_date, no_pickup, no_drop_off, platform)
  ON booking.trip_stops TO wayfare_booking;
GRANT SELECT, INSERT, DELETE ON booking.trip_crew TO wayfare_booking;
GRANT SELECT, INSERT, DELETE ON booking.requests TO wayfare_booking;
GRANT SELECT ON booking.events TO wayfare_booking;
GRANT INSERT (aggregate_type, aggregate_id, aggregate_version, tenant_id, envelope) ON booking.events TO wayfare_booking;
GRANT SELECT, UPDATE ON booking.event_cursor TO wayfare_booking;

-- migrate:down
-- Migrations only go forward.
