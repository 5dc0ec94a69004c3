"""The folder of a run, and the machine that it is on."""
