"""Find newer upstream releases of what a preset holds (online)."""
