"""What an inference returns when the local model cannot, or is unsure: the rungs below `local`.

1. `options`       what the application declared; all is off without
2. `conservative`  the answer that is safe whatever the input is
"""
