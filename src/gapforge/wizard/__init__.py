"""Offer versions that fit together, and make a preset of the user's choices."""
