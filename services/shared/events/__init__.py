"""Carries what happened from the service where it happened to those who want to know.

A service writes events in the transaction of the change (`EventLog`), the relay publishes them to
Valkey streams in the order of their commits (`EventRelay`), and consumers take each once
(`EventConsumer`); what cannot be handled ends in the dead letters (`DeadLetters`, `wayfare dlq`).
A service that does so has the tables of `tables.py` in a migration of its own.
"""
