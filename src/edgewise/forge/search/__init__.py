"""Find variants worth measuring: what to offer, what it costs, where to place it."""
