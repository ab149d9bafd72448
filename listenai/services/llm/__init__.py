"""A chat model as an OpenAI-compatible HTTP API (spec 000, "LLM Service")."""
