"""Verification: whether a variant can be trusted, under the conditions it will meet.

A suite is a plain function from a `Subject` (the variant beside fp32, on one runtime, with the task's data) to a
`Section` of graded findings. `suites.py` lists them; adding one is adding a file and a line there.
"""
