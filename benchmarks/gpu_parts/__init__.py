"""The parts of `gpu.py`, one module for each subject."""
