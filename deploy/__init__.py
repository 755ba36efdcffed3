"""What runs Ratchet elsewhere, where it is made by code."""
