"""From a user's model to a normalised graph: checked, folded, shapes known."""
