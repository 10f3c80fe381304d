"""What a device tells of its inputs, so that the next calibration stands for what the fleet sees.

1. `sketches`  how far each channel goes, sampled and binned in batches
2. `samples`   raw inputs, only with consent, encrypted to the operator's key
"""
