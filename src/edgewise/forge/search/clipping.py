"""Find how much of their ranges the noisiest activations are better off with, by what the whole model says.

A range method looks at one tensor and weighs all its errors alike. What an error costs at the output is another matter:
the few large values that a heavy-tailed tensor owes its range to may hardly count there, and every other value pays
for them with a wider step. So the ranges of the tensors with the most noise for their signal are narrowed and widened
one after another, all else quantized, and what brings the output closer to fp32 is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from edgewise.contracts.recipe import Recipe
from edgewise.forge.progress import Progress
from edgewise.forge.ranges import shared_grids
from edgewise.forge.search.bench import Bench, Trial
from edgewise.forge.weights import parameters_for, range_methods
from edgewise.numerics.ranges import relative_noise

# Shares of a tensor's range that are tried.
_RATIOS = (0.5, 0.7, 0.85, 1.25)
# What the geometric mean of divergence and noise must fall by: smaller gains are chance.
_GAIN = 0.01
_DB = math.log(10) / 10


def clip_ratios(
    bench: Bench, recipe: Recipe, positions: Sequence[int], *, limit: int, progress: Progress
) -> dict[str, float]:
    """Return the share of its range that each tensor is given, for those of the `limit` noisiest that gain by it."""
    tensors = noisiest(bench, recipe)[:limit]
    progress.start("ranges of the noisiest tensors", len(tensors))
    found: dict[str, float] = {}
    best = _loss(bench.try_all([recipe], positions=positions)[0])
    for done, tensor in enumerate(tensors, 1):
        tried = [{**found, tensor: ratio} for ratio in _RATIOS]
        recipes = [msgspec.structs.replace(recipe, name=f"clip {tensor}", clip=each) for each in tried]
        losses = [_loss(trial) for trial in bench.try_all(recipes, positions=positions)]
        least = min(losses)
        if least < best - _GAIN:
            best, found = least, tried[losses.index(least)]
        progress.advance(done)
    return found


def noisiest(bench: Bench, recipe: Recipe) -> list[str]:
    """Return the tensors that a recipe quantizes, those with the most noise for their signal first."""
    grids = parameters_for(bench.graph, bench.regions, recipe, bench.calibration, bench.corrections).grids
    roots = shared_grids(bench.regions)
    names = {
        roots.get(name, name) for name in range_methods(bench.regions, {each.region: each for each in recipe.regions})
    }
    noise = {}
    for name in names & grids.keys():
        grid = grids[name]
        low, high = ((level - int(grid.zero_point)) * float(grid.scale) for level in (grid.qmin, grid.qmax))
        bits = (grid.qmax - grid.qmin).bit_length()
        noise[name] = relative_noise(bench.calibration.histograms[name], low, high, bits=bits)
    return sorted(noise, key=lambda name: (-noise[name], name))


def _loss(trial: Trial) -> float:
    """Return the log of the geometric mean of the task's divergence and the noise of the outputs.

    The one is what counts and rests on few samples, the other says less and varies less.
    """
    judgement = trial.judgement
    if judgement is None:
        return math.inf
    divergence = math.log(max(judgement.divergence, 1e-12))
    return divergence if judgement.sqnr_db is None else (divergence - judgement.sqnr_db * _DB) / 2
