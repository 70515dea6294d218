"""Judge which versions go together, from the catalog."""
