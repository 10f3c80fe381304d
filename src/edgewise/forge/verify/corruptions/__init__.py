"""Corruptions: what the world does to an input, at five severities, and whether the variant bears it as fp32 does.

One file per kind of input holds pure functions; `modality` says which kind a model's input is; `compare` holds the
paired statistics; `suite` runs both models.
"""
