"""The fleet: stores, publishes and rolls out, gated by evidence of devices. Not in place yet."""
