"""The agent of a device: joins a fleet, updates, runs the model, answers local applications, reports.

1. `enrolment`  who the device is, and which roots it trusts
2. `settings`   what its owner decides: agent.toml
3. `schedule`   what is due when: pure
4. `polling`    one poll: update both repositories, fetch, try, confirm, swap
5. `serving`    the model that answers, another one swapped in between two inferences, a third scored beside it
6. `counts`     what is counted, for telemetry and for the status
7. `tensors`    arrays in and out, within limits
8. `http_`      the local HTTP interface
9. `running`    the process

Everything it keeps is in one folder, and one process at a time works on it.
"""
