"""Holds what two services need and what knows no service."""
