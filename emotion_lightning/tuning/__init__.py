"""Hyperparameter search with Optuna (the extra `tune`)."""
