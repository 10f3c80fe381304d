"""Which variant answers: adaptive precision among those that were measured to help on this device.

1. `policy`    the numbers it decides with; defaults from the bundle's budget
2. `decide`    the rule: pure
3. `lateness`  how much of their deadlines the last items needed
4. `sensors`   what the device says of itself: temperature, battery, memory, load
5. `governor`  what is remembered between two items, and when the rule is asked
6. `replay`    what a policy would have done with a recorded stream
7. `joining`   which variants are measured faster or cheaper here
8. `adaptive`  the runtime that switches
"""
