"""File formats: delimited text, JSON Lines, Arrow; and text encodings."""
