"""Engines on the network: each a protocol without I/O, a server, and a client."""
