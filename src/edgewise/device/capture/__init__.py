"""What a device tells of its inputs, so that the next calibration stands for what the fleet sees.

1. `noise`     integer noise with exact probabilities
2. `sketches`  how far each channel goes, sampled and binned in batches
3. `samples`   raw inputs, only with consent, encrypted to the operator's key
"""
