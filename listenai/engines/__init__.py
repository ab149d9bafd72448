"""Implementations of hearing, thinking and speaking; one module an engine."""
