-- migrate:up

-- Accounts, sessions and API keys. Every table is seen through app.tenant_id only; the service sets it for each
-- transaction from the request, the token or the key that it serves.

CREATE SCHEMA identity;
GRANT USAGE ON SCHEMA identity TO wayfare_identity;

CREATE FUNCTION identity.current_tenant() RETURNS uuid
  LANGUAGE sql STABLE
  RETURN NULLIF(current_setting('app.tenant_id', true), '')::uuid;

CREATE FUNCTION identity.is_sweeper() RETURNS boolean
  LANGUAGE sql STABLE
  RETURN current_setting('app.role', true) = 'SWEEPER';

CREATE TABLE identity.tenants (
  tenant_id    uuid PRIMARY KEY,
  display_name text NOT NULL CHECK (char_length(display_name) BETWEEN 1 AND 100),
  create_time  timestamptz NOT NULL
);

CREATE TABLE identity.users (
  user_id       uuid PRIMARY KEY,
  tenant_id     uuid NOT NULL REFERENCES identity.tenants,
  phone         text NOT NULL CHECK (phone ~ '^\+[1-9][0-9]{6,14}$'),
  display_name  text NOT NULL CHECK (char_length(display_name) BETWEEN 1 AND 100),
  role          text NOT NULL CHECK (role IN ('PASSENGER', 'DRIVER', 'CONDUCTOR', 'BUSINESS', 'ADMIN')),
  status        text NOT NULL CHECK (status IN ('ACTIVE', 'PENDING', 'SUSPENDED')),
  password_hash text NOT NULL CHECK (password_hash LIKE '$argon2id$%'),
  create_time   timestamptz NOT NULL,
  update_time   timestamptz NOT NULL,
  approve_time  timestamptz,
  CONSTRAINT users_phone_once_per_tenant UNIQUE (tenant_id, phone),
  CONSTRAINT users_pending_are_unapproved_drivers
    CHECK (status <> 'PENDING' OR (role = 'DRIVER' AND approve_time IS NULL)),
  CONSTRAINT users_active_drivers_are_approved
    CHECK (status <> 'ACTIVE' OR role <> 'DRIVER' OR approve_time IS NOT NULL)
);
CREATE INDEX users_newest ON identity.users (tenant_id, user_id DESC);
CREATE INDEX users_newest_of_role ON identity.users (tenant_id, role, status, user_id DESC);

CREATE TABLE identity.sessions (
  session_id        uuid PRIMARY KEY,
  tenant_id         uuid NOT NULL,
  user_id           uuid NOT NULL REFERENCES identity.users,
  token_seed        bytea NOT NULL CHECK (octet_length(token_seed) = 32),
  generation        integer NOT NULL CHECK (generation >= 0),
  token_hash        bytea NOT NULL CHECK (octet_length(token_hash) = 32),
  token_expire_time timestamptz NOT NULL,
  create_time       timestamptz NOT NULL,
  expire_time       timestamptz NOT NULL,
  rotate_time       timestamptz,
  rotate_request_id uuid,
  revoke_time       timestamptz,
  revoke_cause      text CHECK (revoke_cause IN ('LOGGED_OUT', 'SUSPENDED', 'TOKEN_REUSED')),
  CONSTRAINT sessions_revoked_for_a_cause CHECK ((revoke_time IS NULL) = (revoke_cause IS NULL)),
  CONSTRAINT sessions_token_within_session CHECK (token_expire_time <= expire_time)
);
CREATE INDEX sessions_open_of_user ON identity.sessions (user_id) WHERE revoke_time IS NULL;
CREATE INDEX sessions_by_token_expiry ON identity.sessions (token_expire_time);

CREATE TABLE identity.api_keys (
  key_id              uuid PRIMARY KEY,
  tenant_id           uuid NOT NULL REFERENCES identity.tenants,
  display_name        text NOT NULL CHECK (char_length(display_name) BETWEEN 1 AND 100),
  requests_per_minute integer NOT NULL CHECK (requests_per_minute BETWEEN 1 AND 60000),
  creator_user_id     uuid NOT NULL REFERENCES identity.users,
  secret_seed         bytea NOT NULL CHECK (octet_length(secret_seed) = 32),
  secret_hash         bytea NOT NULL UNIQUE CHECK (octet_length(secret_hash) = 32),
  create_time         timestamptz NOT NULL,
  expire_time         timestamptz,
  revoke_time         timestamptz,
  request_count       bigint NOT NULL DEFAULT 0 CHECK (request_count >= 0),
  last_use_time       timestamptz
);
CREATE INDEX api_keys_newest ON identity.api_keys (tenant_id, key_id DESC);

CREATE TABLE identity.requests (
  tenant_id   uuid NOT NULL,
  caller      text NOT NULL CHECK (char_length(caller) BETWEEN 1 AND 64),
  request_id  uuid NOT NULL,
  method      text NOT NULL,
  body_hash   bytea NOT NULL CHECK (octet_length(body_hash) = 32),
  result_id   uuid NOT NULL,
  create_time timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, caller, request_id)
);
CREATE INDEX requests_oldest ON identity.requests (create_time);

ALTER TABLE identity.tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE identity.tenants FORCE ROW LEVEL SECURITY;
ALTER TABLE identity.users ENABLE ROW LEVEL SECURITY;
ALTER TABLE identity.users FORCE ROW LEVEL SECURITY;
ALTER TABLE identity.sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE identity.sessions FORCE ROW LEVEL SECURITY;
ALTER TABLE identity.api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE identity.api_keys FORCE ROW LEVEL SECURITY;
ALTER TABLE identity.requests ENABLE ROW LEVEL SECURITY;
ALTER TABLE identity.requests FORCE ROW LEVEL SECURITY;

CREATE POLICY own_tenant ON identity.tenants USING (tenant_id = identity.current_tenant());
CREATE POLICY own_tenant ON identity.users USING (tenant_id = identity.current_tenant());
CREATE POLICY own_tenant ON identity.sessions USING (tenant_id = identity.current_tenant());
CREATE POLICY own_tenant ON identity.api_keys USING (tenant_id = identity.current_tenant());
CREATE POLICY own_tenant ON identity.requests USING (tenant_id = identity.current_tenant());

-- A key names no tenant. Who presents the secret may read its one row, and nothing else.
CREATE POLICY presented_key ON identity.api_keys FOR SELECT
  USING (secret_hash = decode(NULLIF(current_setting('app.api_key_hash', true), ''), 'hex'));

-- Forgetting goes over all tenants, and reaches only what has ended.
CREATE POLICY sweeper_sees_old ON identity.requests FOR SELECT
  USING (identity.is_sweeper() AND create_time < now() - interval '1 hour');
CREATE POLICY sweeper_deletes_old ON identity.requests FOR DELETE
  USING (identity.is_sweeper() AND create_time < now() - interval '1 hour');
CREATE POLICY sweeper_sees_ended ON identity.sessions FOR SELECT
  USING (identity.is_sweeper() AND token_expire_time < now());
CREATE POLICY sweeper_deletes_ended ON identity.sessions FOR DELETE
  USING (identity.is_sweeper() AND token_expire_time < now());

GRANT EXECUTE ON FUNCTION identity.current_tenant(), identity.is_sweeper() TO wayfare_identity;
GRANT SELECT, INSERT ON identity.tenants TO wayfare_identity;
GRANT SELECT, INSERT ON identity.users TO wayfare_identity;
GRANT UPDATE (display_name, role, status, password_hash, update_time, approve_time)
  ON identity.users TO wayfare_identity;
GRANT SELECT, INSERT, DELETE ON identity.sessions TO wayfare_identity;
GRANT UPDATE (generation, token_hash, token_expire_time, rotate_time, rotate_request_id, revoke_time, revoke_cause)
  ON identity.sessions TO wayfare_identity;
GRANT SELECT, INSERT ON identity.api_keys TO wayfare_identity;
GRANT UPDATE (revoke_time, request_count, last_use_time) ON identity.api_keys TO wayfare_identity;
GRANT SELECT, INSERT, DELETE ON identity.requests TO wayfare_identity;

-- migrate:down
-- Migrations only go forward.
