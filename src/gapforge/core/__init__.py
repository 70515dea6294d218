"""What both halves share: the nouns (preset, lock, store) and the careful ways to touch files and programs."""
