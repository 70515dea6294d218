"""Carrying objects across the gap: volumes that stand alone, packed in one pass and imported in any order."""
