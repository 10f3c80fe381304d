"""Reads and writes bundles, and the deltas between them: what forge, fleet and device share.

Order of reading: `names` (what a path may be), `seal` (the signature block), `archive` (where every byte goes),
`rules` (what a manifest must say), `read`, `write`, `tensors`.
"""
