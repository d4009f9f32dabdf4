"""Imports timetables: reads and judges a GTFS feed, and writes it to PostgreSQL as one version."""
