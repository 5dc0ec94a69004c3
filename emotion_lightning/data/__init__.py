"""Texts and labels: read, check, split, tokenize and batch."""
