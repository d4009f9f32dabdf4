"""Measures the mesh: load over gRPC against the whole stack, and the parts of the position path."""
