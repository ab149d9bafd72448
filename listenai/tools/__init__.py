"""Tools a chat model may call."""
