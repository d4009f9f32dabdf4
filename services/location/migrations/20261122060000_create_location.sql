-- migrate:up

-- Tracked trips and who may follow them. Live positions are in Valkey; these tables must outlive it. Every table is
-- seen through app.tenant_id only, which the service sets for each transaction.

CREATE SCHEMA location;
GRANT USAGE ON SCHEMA location TO wayfare_location;

CREATE FUNCTION location.current_tenant() RETURNS uuid
  LANGUAGE sql STABLE
  RETURN NULLIF(current_setting('app.tenant_id', true), '')::uuid;

CREATE TABLE location.tracked_trips (
  trip_id        uuid PRIMARY KEY,
  tenant_id      uuid NOT NULL,
  driver_id      uuid NOT NULL,
  vehicle_id     text NOT NULL CHECK (vehicle_id ~ '^[A-Za-z0-9._:-]{1,64}$'),
  stops          jsonb NOT NULL,
  expected_count integer NOT NULL CHECK (expected_count >= 0),
  start_time     timestamptz NOT NULL,
  stop_time      timestamptz
);
CREATE INDEX tracked_trips_running ON location.tracked_trips (tenant_id, start_time DESC) WHERE stop_time IS NULL;

CREATE TABLE location.trip_followers (
  trip_id      uuid NOT NULL REFERENCES location.tracked_trips ON DELETE CASCADE,
  tenant_id    uuid NOT NULL,
  user_id      uuid NOT NULL,
  is_conductor boolean NOT NULL,
  PRIMARY KEY (trip_id, user_id)
);

CREATE TABLE location.requests (
  tenant_id   uuid NOT NULL,
  request_id  uuid NOT NULL,
  body_hash   bytea NOT NULL CHECK (octet_length(body_hash) = 32),
  create_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, request_id)
);
CREATE INDEX requests_oldest ON location.requests (create_time);

ALTER TABLE location.tracked_trips ENABLE ROW LEVEL SECURITY;
ALTER TABLE location.tracked_trips FORCE ROW LEVEL SECURITY;
ALTER TABLE location.trip_followers ENABLE ROW LEVEL SECURITY;
ALTER TABLE location.trip_followers FORCE ROW LEVEL SECURITY;
ALTER TABLE location.requests ENABLE ROW LEVEL SECURITY;
ALTER TABLE location.requests FORCE ROW LEVEL SECURITY;

CREATE POLICY tenant_only ON location.tracked_trips TO wayfare_location
  USING (tenant_id = location.current_tenant()) WITH CHECK (tenant_id = location.current_tenant());
CREATE POLICY tenant_only ON location.trip_followers TO wayfare_location
  USING (tenant_id = location.current_tenant()) WITH CHECK (tenant_id = location.current_tenant());
CREATE POLICY tenant_only ON location.requests TO wayfare_location
  USING (tenant_id = location.current_tenant()) WITH CHECK (tenant_id = location.current_tenant());
-- The sweep of old requests serves all tenants and sees nothing else.
CREATE POLICY sweep ON location.requests FOR DELETE TO wayfare_location
  USING (current_setting('app.role', true) = 'SWEEPER' AND create_time < now() - interval '1 day');
CREATE POLICY sweep_sees ON location.requests FOR SELECT TO wayfare_location
  USING (current_setting('app.role', true) = 'SWEEPER' AND create_time < now() - interval '1 day');

GRANT SELECT, INSERT, UPDATE ON location.tracked_trips TO wayfare_location;
GRANT SELECT, INSERT, DELETE ON location.trip_followers TO wayfare_location;
GRANT SELECT, INSERT, UPDATE (request_id), DELETE ON location.requests TO wayfare_location;

-- migrate:down
