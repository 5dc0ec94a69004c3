"""Texts and labels: read, checked, split, tokenized and in batches."""
