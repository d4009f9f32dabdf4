-- migrate:up

-- Timetables, as imported from a GTFS feed by services/location/gtfs. Each import is a feed of its own, written whole and
-- then made the current one in the same transaction; deleting a feed deletes all of it. Rows are never changed.

CREATE TABLE location.timetable_feeds (
  feed_id         uuid PRIMARY KEY,
  tenant_id       uuid NOT NULL,
  sha256          bytea NOT NULL CHECK (octet_length(sha256) = 32),
  is_current      boolean NOT NULL,
  agency_name     text NOT NULL,
  time_zone       text NOT NULL,
  first_date      date NOT NULL,
  last_date       date NOT NULL,
  stop_time_count integer NOT NULL,
  warning_count   integer NOT NULL,
  import_time     timestamptz NOT NULL,
  CHECK (first_date <= last_date)
);
CREATE UNIQUE INDEX timetable_feeds_current ON location.timetable_feeds (tenant_id) WHERE is_current;

CREATE TABLE location.timetable_routes (
  feed_id    uuid NOT NULL REFERENCES location.timetable_feeds ON DELETE CASCADE,
  tenant_id  uuid NOT NULL,
  route_id   text NOT NULL,
  short_name text NOT NULL,
  long_name  text NOT NULL,
  route_type integer NOT NULL,
  PRIMARY KEY (feed_id, route_id)
);

CREATE TABLE location.timetable_stops (
  feed_id      uuid NOT NULL REFERENCES location.timetable_feeds ON DELETE CASCADE,
  tenant_id    uuid NOT NULL,
  stop_id      text NOT NULL,
  display_name text NOT NULL,
  latitude     double precision NOT NULL CHECK (latitude BETWEEN -90 AND 90),
  longitude    double precision NOT NULL CHECK (longitude BETWEEN -180 AND 180),
  PRIMARY KEY (feed_id, stop_id)
);

-- Bit 0 of weekdays is Monday.
CREATE TABLE location.timetable_services (
  feed_id       uuid NOT NULL REFERENCES location.timetable_feeds ON DELETE CASCADE,
  tenant_id     uuid NOT NULL,
  service_id    text NOT NULL,
  weekdays      smallint NOT NULL CHECK (weekdays BETWEEN 0 AND 127),
  first_date    date,
  last_date     date,
  added_dates   date[] NOT NULL,
  removed_dates date[] NOT NULL,
  PRIMARY KEY (feed_id, service_id)
);

-- Points are little-endian pairs of int32, latitude and longitude in units of 1e-7 degrees.
CREATE TABLE location.timetable_shapes (
  feed_id   uuid NOT NULL REFERENCES location.timetable_feeds ON DELETE CASCADE,
  tenant_id uuid NOT NULL,
  shape_id  text NOT NULL,
  points    bytea NOT NULL CHECK (octet_length(points) >= 16 AND octet_length(points) % 8 = 0),
  PRIMARY KEY (feed_id, shape_id)
);

-- What trips have in common that call at the same stops after the same times: most of a timetable. Seconds count from the
-- trip's first departure; distances are meters along the shape, null when the feed does not tell.
CREATE TABLE location.timetable_patterns (
  feed_id           uuid NOT NULL REFERENCES location.timetable_feeds ON DELETE CASCADE,
  tenant_id         uuid NOT NULL,
  pattern_number    integer NOT NULL,
  stop_ids          text[] NOT NULL CHECK (cardinality(stop_ids) >= 2),
  stop_sequences    integer[] NOT NULL,
  arrival_seconds   integer[] NOT NULL,
  departure_seconds integer[] NOT NULL,
  distances         real[],
  PRIMARY KEY (feed_id, pattern_number)
);

CREATE TABLE location.timetable_trips (
  feed_id           uuid NOT NULL REFERENCES location.timetable_feeds ON DELETE CASCADE,
  tenant_id         uuid NOT NULL,
  timetable_trip_id text NOT NULL CHECK (length(timetable_trip_id) <= 128),
  route_id          text NOT NULL,
  service_id        text NOT NULL,
  pattern_number    integer NOT NULL,
  shape_id          text,
  start_seconds     integer NOT NULL CHECK (start_seconds >= 0),
  direction_id      smallint CHECK (direction_id IN (0, 1)),
  short_name        text NOT NULL,
  headsign          text NOT NULL,
  PRIMARY KEY (feed_id, timetable_trip_id)
);

DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['feeds', 'routes', 'stops', 'services', 'shapes', 'patterns', 'trips'] LOOP
    EXECUTE format('ALTER TABLE location.timetable_%s ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE location.timetable_%s FORCE ROW LEVEL SECURITY', name);
    EXECUTE format(
      'CREATE POLICY tenant_only ON location.timetable_%s TO wayfare_location'
      ' USING (tenant_id = location.current_tenant()) WITH CHECK (tenant_id = location.current_tenant())', name);
    EXECUTE format('GRANT SELECT, INSERT ON location.timetable_%s TO wayfare_location', name);
  END LOOP;
END
$$;
GRANT UPDATE (is_current), DELETE ON location.timetable_feeds TO wayfare_location;

-- migrate:down
