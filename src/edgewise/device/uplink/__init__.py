"""What a device reports, and how it gets there when the network is away for weeks.

1. `collector`  what happened in a window of a running device becomes envelopes
2. `merging`    two neighbouring windows become one, exactly
3. `spool`      envelopes on the disk: bounded, the oldest down-sampled first, what was dropped is counted
4. `dating`     what time it is, on a device whose clock may be wrong
5. `signing`    a request in the device's name
6. `otlp`       envelopes as metrics of OpenTelemetry
7. `destinations`  the fleet server or any collector, and what their answers mean
8. `send`       batches, with patience

SQLite and the sockets are imported here only, and only when a device reports: importing `edgewise.device` stays light.
"""
