"""The embedded stack: PostgreSQL, Valkey, Envoy and the services as child processes, and the command."""
