"""The workstation: from a trained model to a variant that fits its budget, and the evidence for it."""
