"""Data: splits that are read one sample at a time, whatever file or folder they come from."""
