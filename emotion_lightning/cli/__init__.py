"""A command line is read, checked and turned into jobs."""
