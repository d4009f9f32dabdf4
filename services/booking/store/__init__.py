"""Keeps trips, seats, bookings and tickets in PostgreSQL, schema `booking`."""
