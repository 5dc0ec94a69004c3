"""Networks: build, adapt, save and load."""
