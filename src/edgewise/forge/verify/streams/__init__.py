"""A variant as a stream of frames: on time, for long, and when the device is not at its best.

`pace` keeps the schedule and is pure; `child` is the process that is measured; `worker` starts and asks it;
`conditions` makes the machine worse; `judge` grades; `suite` puts it together.
"""
