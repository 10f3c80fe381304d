"""Ours against the best peer of each column. Pure: rows in, claims out."""

from dataclasses import dataclass

from runs import Run
from score import DECIDES, Figure, kind

SPEED_SHARE = 0.97  # of the fastest peer's speed, whatever that peer's accuracy
FAST_SHARE = 2.0  # `--effort fast` may take this many times the yardstick's wall time
YARDSTICK = "ort minmax"
DEFAULT_SECONDS = {"mobilenetv2-imagenet": 90, "resnet8-cifar10": 20}
# For orientation, at the default effort: (deciding figure, speed over fp32). The speeds
# are from another processor (Zen 4) than most machines here.
ORIENTATION = {
    "resnet8-cifar10": (0.012, 1.75),
    "mobilenetv2-imagenet": (0.033, 2.0),
    "yolox-nano-coco128": (0.009, 1.0),
    "minilm-stsb": (0.998, 2.3),
}


@dataclass(frozen=True)
class Claim:
    """One comparison: what was found, what was required, whether it holds (None: not known)."""

    of: str
    about: str
    found: str
    required: str
    holds: bool | None


def most_accurate(peers: list[Run], figure: Figure) -> Run | None:
    """Find the peer with the best deciding figure, at any speed."""
    sign = -1 if figure.more_is_better else 1
    return min(peers, key=lambda run: sign * run.quality[figure.key], default=None)


def fastest(peers: list[Run]) -> Run | None:
    """Find the peer with the best speed over fp32, at any accuracy."""
    return max(peers, key=lambda run: run.speed["fp32"]["median"], default=None)


def claims(task: str, rows: list[Run]) -> list[Claim]:
    """Make every comparison that can be made for our runs of a task."""
    figure = DECIDES[kind(task)]
    peers = [run for run in rows if run.ran and not run.ours]
    found: list[Claim] = []
    for run in (run for run in rows if run.ours):
        if not run.ran:
            found.append(Claim(run.name, "ran", "failed, see above", "a scored and timed model", holds=False))
            continue
        found += quality(run, peers, figure)
        if task in ORIENTATION and not run.name.endswith("fast"):
            found.append(orientation(run, figure, *ORIENTATION[task]))
        found += seconds(run, task, {peer.name: peer for peer in rows})
    return found


def quality(run: Run, peers: list[Run], figure: Figure) -> list[Claim]:
    """Compare both columns at once: accuracy at any speed, speed at any accuracy; and fp32's own speed."""
    found: list[Claim] = []
    if best := most_accurate(peers, figure):
        mine, theirs = run.quality[figure.key], best.quality[figure.key]
        required = f"no worse than {figure.form.format(theirs)} ({best.name})"
        holds = figure.no_worse(mine, theirs)
        found.append(Claim(run.name, figure.title, figure.form.format(mine), required, holds))
    if quick := fastest(peers):
        share = run.speed[quick.name]["median"]
        required = f">= {SPEED_SHARE} x the fastest ({quick.name}, {quick.speed['fp32']['median']:.2f}x fp32)"
        found.append(Claim(run.name, "speed", f"{share:.3f} x", required, share >= SPEED_SHARE))
    own = run.speed["fp32"]["median"]
    # Where fp32 was chosen, the file is fp32's own, and what its two copies differ by is the clock's noise.
    itself = run.said.get("name") == "fp32"
    said = f"{own:.3f} x" + (" (the same file)" if itself else "")
    holds = itself or run.speed["fp32"]["interval"][1] >= 1
    found.append(Claim(run.name, "over fp32", said, "never slower", holds))
    return found


def orientation(run: Run, figure: Figure, quality: float, speed: float) -> Claim:
    """Compare with the orientation's two figures at once."""
    mine, pace = run.quality[figure.key], run.speed["fp32"]["median"]
    holds = figure.no_worse(mine, quality) and pace >= speed
    found = f"{figure.form.format(mine)} at {pace:.2f}x"
    return Claim(run.name, "orientation", found, f"{figure.form.format(quality)} at {speed:.2f}x", holds)


def seconds(run: Run, task: str, rows: dict[str, Run]) -> list[Claim]:
    """Compare the time that optimizing took."""
    took = run.wall_seconds or 0.0
    said = f"{took:.1f} s" + (f" ({run.cpu_seconds:.1f} s of processor)" if run.cpu_seconds else "")
    if run.name.endswith("fast"):
        yardstick = rows[YARDSTICK].wall_seconds if YARDSTICK in rows and not rows[YARDSTICK].failure else None
        if yardstick is None:
            return [Claim(run.name, "wall time", said, f"{YARDSTICK} did not run", None)]
        limit, theirs = FAST_SHARE * yardstick, rows[YARDSTICK].cpu_seconds
        required = f"<= {FAST_SHARE:.0f} x {YARDSTICK}'s {yardstick:.1f} s" + (f" ({theirs:.1f} s)" if theirs else "")
        return [Claim(run.name, "wall time", said, required, took <= limit)]
    if task in DEFAULT_SECONDS:
        limit = DEFAULT_SECONDS[task]
        return [Claim(run.name, "wall time", said, f"<= {limit} s", took <= limit)]
    return []
