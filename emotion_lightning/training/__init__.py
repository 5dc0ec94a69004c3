"""A network learns."""
