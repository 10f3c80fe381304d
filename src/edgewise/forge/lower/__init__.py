"""Write the graph that a runtime fuses: one file per family of formats."""
