"""Training: the LightningModule, optimizer, callbacks, loggers and the files of a finished run."""
