"""Speech synthesis on the network (spec 000, "TTS Service")."""
