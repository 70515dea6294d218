"""Make and check SSH signatures, and keep the list of trusted signers."""
