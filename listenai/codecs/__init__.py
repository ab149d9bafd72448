"""From one form of audio to another: rates and encodings."""
