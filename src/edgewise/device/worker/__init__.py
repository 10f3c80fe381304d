"""A session in a process of its own: what crashes, hangs or takes all memory there ends that process and no other."""

from edgewise.device.worker.worker import Counts, Limits, Worker

__all__ = ["Counts", "Limits", "Worker"]
