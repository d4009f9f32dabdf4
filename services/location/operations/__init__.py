"""Holds the use cases of LocationService: no SQL, no proto, no RPC."""
