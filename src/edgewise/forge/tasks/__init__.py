"""Tasks: a metric over predictions and a distance to fp32, one file each; `choose` picks one."""
