"""Is Wayfare's gRPC server: HTTP/2 on the event loop itself. See docs/adr/0021-wire.md."""
