"""Files of a run folder, and the environment that a run is started in."""
