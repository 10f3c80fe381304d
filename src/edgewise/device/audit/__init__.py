"""The log of every fallback, for a person who has to find out later what a device returned, and why.

1. `chain`    entries as lines, each with a digest over all before it; pure
2. `log`      the writer: a thread of its own, bounded by rotation
3. `reading`  the whole log again, and whether it is as it was written
"""
