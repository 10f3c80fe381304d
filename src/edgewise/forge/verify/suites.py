"""The suites, in the order of the report. Adding one is adding a file, and a line here.

What a suite finds out about the variant's own cut-offs travels in its findings: those named `ood.cutoff`
(`subject` the score, `value` the cut-off, `limit` the share of good data that it keeps) become part of the
variant's calibration.
"""

from __future__ import annotations

from edgewise.contracts.verification import Depth
from edgewise.forge.verify.adversarial import adversarial
from edgewise.forge.verify.agreement import agreement
from edgewise.forge.verify.corruptions.suite import corruptions
from edgewise.forge.verify.integrity import integrity
from edgewise.forge.verify.ood import ood
from edgewise.forge.verify.streams.suite import streams
from edgewise.forge.verify.subject import Suite
from edgewise.forge.verify.where import where

_ALWAYS = (Depth.QUICK, Depth.FULL)

SUITES: tuple[tuple[str, Suite, tuple[Depth, ...]], ...] = (
    ("agreement", agreement, _ALWAYS),
    ("where", where, _ALWAYS),
    ("integrity", integrity, _ALWAYS),
    ("corruptions", corruptions, _ALWAYS),
    ("ood", ood, _ALWAYS),
    ("adversarial", adversarial, (Depth.FULL,)),
    ("streams", streams, _ALWAYS),
)
