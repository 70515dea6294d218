"""Check whether this machine can build a preset."""
