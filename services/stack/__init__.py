"""The embedded stack (PostgreSQL, Valkey, Envoy and services as child processes), the command."""
