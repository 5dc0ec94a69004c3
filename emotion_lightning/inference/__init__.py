"""A finished run is asked, exported and shared."""
