"""Generate schemas and documents. No site needs this package."""
