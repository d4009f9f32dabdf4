"""Holds one folder per service, the rooms that they share, and the embedded stack."""
