"""The shortlist and fp32 on the further runtimes that the user names: there they are candidates of their own."""

from __future__ import annotations

import msgspec

from edgewise.contracts.evidence import name_on
from edgewise.forge.evidence import candidate_of
from edgewise.forge.judge import Judgement
from edgewise.forge.judges import Failure
from edgewise.forge.measured import Shortlisted
from edgewise.forge.search.bench import Trial


def on_runtime(each: Shortlisted, runtime: str, found: Judgement | Failure) -> Shortlisted:
    """Return the candidate that a file is on another runtime, by how it was judged there, or the reason why not.

    Of the first runtime's figures only the size stays: other kernels round differently, and take other times.
    """
    mine = each.candidate
    if isinstance(found, Failure):
        trial = Trial(recipe=mine.recipe, judgement=None, failure=found.reason)
    else:
        trial = Trial(recipe=mine.recipe, judgement=found)
    there = candidate_of(trial, runtime=runtime, higher_is_better=mine.higher_is_better, size_mib=mine.size_mib)
    return msgspec.structs.replace(each, candidate=msgspec.structs.replace(there, name=name_on(mine.name, runtime)))
