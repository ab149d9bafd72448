"""Speech recognition as a service (spec 000, "ASR Service")."""
