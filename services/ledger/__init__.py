"""Keeps the money: accounts, transfers and every entry of them."""
