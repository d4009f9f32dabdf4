-- migrate:up

-- Where vehicles were (a partition per day, dropped after 90), where each driver was last, the way of ended trips, and
-- the areas that tenants watch.

CREATE TABLE location.position_history (
  tenant_id      uuid NOT NULL,
  vehicle_id     text NOT NULL,
  capture_time   timestamptz NOT NULL,
  receive_time   timestamptz NOT NULL,
  driver_id      uuid NOT NULL,
  trip_id        uuid,
  latitude       double precision NOT NULL,
  longitude      double precision NOT NULL,
  speed          real,
  heading        real,
  accuracy       real,
  PRIMARY KEY (tenant_id, vehicle_id, capture_time)
) PARTITION BY RANGE (capture_time);
CREATE INDEX position_history_trip ON location.position_history (trip_id, capture_time) WHERE trip_id IS NOT NULL;

-- A cell is one of H3's resolution 7, some 5 square kilometers.
CREATE TABLE location.driver_positions (
  driver_id      uuid PRIMARY KEY,
  tenant_id      uuid NOT NULL,
  vehicle_id     text NOT NULL,
  vehicle_class  smallint NOT NULL,
  trip_id        uuid,
  cell           bigint NOT NULL,
  capture_time   timestamptz NOT NULL,
  receive_time   timestamptz NOT NULL,
  payload        bytea NOT NULL CHECK (octet_length(payload) <= 1024)
) WITH (fillfactor = 50);
-- Every row changes every few seconds. No index has what changes each time, so that most changes stay on their page.
CREATE INDEX driver_positions_free ON location.driver_positions (tenant_id, cell) WHERE trip_id IS NULL;
CREATE INDEX driver_positions_vehicle ON location.driver_positions (tenant_id, vehicle_id);

-- Points are records as services/location/store/history.py packs them, the oldest first.
CREATE TABLE location.trip_tracks (
  trip_id       uuid PRIMARY KEY REFERENCES location.tracked_trips ON DELETE CASCADE,
  tenant_id     uuid NOT NULL,
  points        bytea NOT NULL,
  length_meters double precision NOT NULL CHECK (length_meters >= 0)
);

CREATE TABLE location.geofences (
  geofence_id   uuid PRIMARY KEY,
  tenant_id     uuid NOT NULL,
  display_name  text NOT NULL CHECK (char_length(display_name) BETWEEN 1 AND 200),
  kind          smallint NOT NULL CHECK (kind > 0),
  shape         jsonb NOT NULL,
  policy        jsonb NOT NULL,
  create_time   timestamptz NOT NULL
);
CREATE INDEX geofences_by_name ON location.geofences (tenant_id, display_name, geofence_id);

ALTER TABLE location.position_history ENABLE ROW LEVEL SECURITY;
ALTER TABLE location.position_history FORCE ROW LEVEL SECURITY;
ALTER TABLE location.driver_positions ENABLE ROW LEVEL SECURITY;
ALTER TABLE location.driver_positions FORCE ROW LEVEL SECURITY;
ALTER TABLE location.trip_tracks ENABLE ROW LEVEL SECURITY;
ALTER TABLE location.trip_tracks FORCE ROW LEVEL SECURITY;
ALTER TABLE location.geofences ENABLE ROW LEVEL SECURITY;
ALTER TABLE location.geofences FORCE ROW LEVEL SECURITY;

CREATE POLICY tenant_only ON location.position_history TO wayfare_location
  USING (tenant_id = location.current_tenant()) WITH CHECK (tenant_id = location.current_tenant());
CREATE POLICY tenant_only ON location.driver_positions TO wayfare_location
  USING (tenant_id = location.current_tenant()) WITH CHECK (tenant_id = location.current_tenant());
CREATE POLICY tenant_only ON location.trip_tracks TO wayfare_location
  USING (tenant_id = location.current_tenant()) WITH CHECK (tenant_id = location.current_tenant());
CREATE POLICY tenant_only ON location.geofences TO wayfare_location
  USING (tenant_id = location.current_tenant()) WITH CHECK (tenant_id = location.current_tenant());

GRANT SELECT, INSERT ON location.position_history TO wayfare_location;
GRANT SELECT, INSERT, UPDATE ON location.driver_positions TO wayfare_location;
GRANT SELECT, INSERT, UPDATE ON location.trip_tracks TO wayfare_location;
GRANT SELECT, INSERT, DELETE ON location.geofences TO wayfare_location;

-- Makes the partitions of the days from first_day on, as many as day_count. The service's role owns no table; it may do this.
CREATE FUNCTION location.make_history_partitions(first_day date, day_count integer) RETURNS integer
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  day date;
  made integer := 0;
BEGIN
  IF day_count NOT BETWEEN 1 AND 31 THEN
    RAISE EXCEPTION 'day_count must be from 1 to 31';
  END IF;
  -- One process at a time: two would make the same partition.
  PERFORM pg_advisory_xact_lock(hashtext('location.position_history'));
  FOR offset_days IN 0 .. day_count - 1 LOOP
    day := first_day + offset_days;
    IF to_regclass(format('location.position_history_%s', to_char(day, 'YYYYMMDD'))) IS NULL THEN
      EXECUTE format(
        'CREATE TABLE location.%I PARTITION OF location.position_history FOR VALUES FROM (%L) TO (%L)',
        'position_history_' || to_char(day, 'YYYYMMDD'),
        to_char(day, 'YYYY-MM-DD') || ' 00:00:00+00',
        to_char(day + 1, 'YYYY-MM-DD') || ' 00:00:00+00');
      made := made + 1;
    END IF;
  END LOOP;
  RETURN made;
END
$$;

-- Drops the partitions of days before first_kept_day, which must be 7 days ago at least.
CREATE FUNCTION location.drop_history_partitions(first_kept_day date) RETURNS integer
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  partition_name text;
  dropped integer := 0;
BEGIN
  IF first_kept_day > (now() AT TIME ZONE 'UTC')::date - 7 THEN
    RAISE EXCEPTION 'history is kept for 7 days at least';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('location.position_history'));
  FOR partition_name IN
    SELECT child.relname FROM pg_inherits
      JOIN pg_class child ON child.oid = pg_inherits.inhrelid
      WHERE pg_inherits.inhparent = 'location.position_history'::regclass
        AND child.relname < 'position_history_' || to_char(first_kept_day, 'YYYYMMDD')
  LOOP
    EXECUTE format('DROP TABLE location.%I', partition_name);
    dropped := dropped + 1;
  END LOOP;
  RETURN dropped;
END
$$;

REVOKE ALL ON FUNCTION location.make_history_partitions(date, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION location.drop_history_partitions(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION location.make_history_partitions(date, integer) TO wayfare_location;
GRANT EXECUTE ON FUNCTION location.drop_history_partitions(date) TO wayfare_location;

-- migrate:down
