"""The device: trusts, updates, runs and falls back. Not in place yet."""
