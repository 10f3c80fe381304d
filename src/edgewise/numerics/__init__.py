"""The equations: numpy only, no I/O, no models. One file for each subject."""
