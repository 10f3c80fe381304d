"""Complete applications made of the other places. Not in place yet."""
