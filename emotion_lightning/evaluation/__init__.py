"""From probabilities to decisions, scores and comparisons."""
