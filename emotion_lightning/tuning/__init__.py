"""A search over settings, by Optuna (the extra `tune`)."""
