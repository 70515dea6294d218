"""Pack objects into volumes, carry them across the gap, and import them in any order."""
