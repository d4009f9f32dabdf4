"""Speaks with payment gateways. Implements deposit_ports.PaymentGateway and Gateways."""

from services.ledger.gateways.accounts import ConfiguredGateways

__all__ = ["ConfiguredGateways"]
