"""Boards: their table, bitstreams, programming, and the host's side of the link to them."""
