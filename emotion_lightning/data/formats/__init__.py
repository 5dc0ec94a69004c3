"""Formats of files: delimited text, JSON lines, Arrow, and the encodings of text."""
