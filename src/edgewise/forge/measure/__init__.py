"""Measure a variant: latency, memory, size and energy, and the machine it was done on."""
