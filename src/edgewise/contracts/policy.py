"""What the director asks of a product's devices: one signed file per product, the same for everybody.

Who is in the cohort follows from it and from the device's name alone (`choose`), so that a poll needs no
server that knows the device. The file is signed online; the image it names must also be in the image
repository, signed offline, with the same digest.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from edgewise.contracts.base import Value
from edgewise.contracts.rollout import Release, Rollout, State, position

POLICY_VERSION = 1


class Image(Value, kw_only=True):
    """A release and its file in the image repository: target name, length (bytes), SHA-256 (hex) of the file."""

    release: Release
    target: str
    length: Annotated[int, msgspec.Meta(gt=0)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Policy(Value, kw_only=True):
    """Devices in the cohort run `offered`, all others `current`.

    The cohort is every device whose position under `salt` is below `share`, and every device with one of
    the `labels`.
    """

    format_version: int = POLICY_VERSION
    product: str
    current: Image
    offered: Image | None = None
    salt: str = ""
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    labels: tuple[str, ...] = ()
    shadow: bool = False
    """The cohort goes on serving with `current` and scores with `offered` beside it."""

    def __post_init__(self) -> None:
        """Raise ValueError where the fields contradict one another."""
        for image in (self.current, self.offered):
            if image is not None and image.release.product != self.product:
                raise ValueError(f"an image of {image.release.product}, required {self.product}")
        if self.offered is not None and self.share and not self.salt:
            raise ValueError("a share without a salt")


def choose(policy: Policy, device: str, labels: frozenset[str]) -> Image:
    """Return what a device should run."""
    if policy.offered is None:
        return policy.current
    labelled = not labels.isdisjoint(policy.labels)
    return policy.offered if labelled or position(device, policy.salt) < policy.share else policy.current


def policy_of(rollout: Rollout, *, before: Image, after: Image) -> Policy:
    """Return the policy that puts exactly the rollout's cohort (`rollout.in_cohort`) on `after`."""
    product = rollout.to_release.product
    if rollout.state is State.COMPLETED:
        return Policy(product=product, current=after)
    if rollout.state in {State.DRAFT, State.ROLLED_BACK}:
        return Policy(product=product, current=before)
    started = rollout.stages[: rollout.stage + (rollout.stage_start_s is not None)]
    shares = [min(stage.share, 1 - rollout.holdback) for stage in started if stage.share is not None]
    return Policy(
        product=product,
        current=before,
        offered=after,
        salt=rollout.salt,
        share=max(shares, default=0.0),
        labels=tuple(stage.label for stage in started if stage.label is not None),
        shadow=rollout.shadow,
    )


def policy_target(product: str) -> str:
    """Return the name under which the director signs a product's policy."""
    return f"policies/{product}.json"


def image_target(product: str, version: str) -> str:
    """Return the name under which the image repository signs a bundle."""
    return f"{product}/{product}-{version}.edgewise"


def encode_policy(policy: Policy) -> bytes:
    """Return a policy as JSON."""
    return msgspec.json.encode(policy)


def decode_policy(data: bytes) -> Policy:
    """Return the policy in JSON text. Raises msgspec.DecodeError where it is none that this version reads."""
    return msgspec.json.decode(data, type=Policy)
