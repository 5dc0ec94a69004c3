"""A network is built, adapted, saved and loaded."""
