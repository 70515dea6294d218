"""Make and verify SSH signatures, and keep the list of trusted signers."""
