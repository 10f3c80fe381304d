"""Which samples to calibrate on, and whether the data can be trusted at all."""
