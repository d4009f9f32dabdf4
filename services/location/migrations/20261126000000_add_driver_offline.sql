-- migrate:up

-- When each driver last said that they went offline: what was received before that is not shown as a free driver while
-- live state is away. A table of its own, because a position of before may be written after it.
CREATE TABLE location.driver_offline (
  driver_id    uuid PRIMARY KEY,
  tenant_id    uuid NOT NULL,
  offline_time timestamptz NOT NULL
);
ALTER TABLE location.driver_offline ENABLE ROW LEVEL SECURITY;
ALTER TABLE location.driver_offline FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_only ON location.driver_offline TO wayfare_location
  USING (tenant_id = location.current_tenant()) WITH CHECK (tenant_id = location.current_tenant());
GRANT SELECT, INSERT, UPDATE ON location.driver_offline TO wayfare_location;

-- migrate:down
-- Migrations only go forward.
