"""Inference: label texts with finished runs, export them, and upload them to the hub."""
