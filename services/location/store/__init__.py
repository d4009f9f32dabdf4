"""Holds what LocationService keeps: live state in Valkey, trips in PostgreSQL."""
