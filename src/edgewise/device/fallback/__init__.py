"""What an inference returns when the local model cannot, or is unsure: the rungs below `local`.

1. `options`       what the application declared; all is off without
2. `conservative`  the answer that is safe whatever the input is
3. `ladder`        whether an unsure answer is escalated; pure
4. `breaker`, `bucket`  whether a server is left alone, and how many calls are left; pure
5. `question`      what is asked; `openai` and `tensors` put it into bytes, and read the reply; pure
6. `exchange`      one request and its reply, with limits; `secret` keeps the key to it
7. `cache`         answers that are kept, for the same input
8. `cloud`         asks in a thread of its own, so that nobody waits longer than there is time

The code of HTTP and TLS (`exchange`, `cloud`) is imported only where a server was declared.
"""
