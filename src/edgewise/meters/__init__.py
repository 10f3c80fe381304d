"""Reads what a machine says of the energy it uses; the forge and the device read the same meters."""
