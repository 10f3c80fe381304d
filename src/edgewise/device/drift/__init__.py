"""Whether what a device sees is still like the data that its variant was proven on.

1. `policy`  how often a false alarm may be
2. `rule`    one score against its reference: pure
3. `watch`   the scores of a variant's inferences, looked at in batches

An alarm says that inputs have changed, not that answers are wrong.
"""
