"""Keep, verify, list and delete files by SHA-256."""
