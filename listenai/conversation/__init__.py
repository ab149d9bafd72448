"""One connection's conversation."""
