"""Reads and checks a command line, and runs its jobs."""
