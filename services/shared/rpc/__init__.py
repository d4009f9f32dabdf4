"""Holds all RPC plumbing: servicers and operations know none of it."""
