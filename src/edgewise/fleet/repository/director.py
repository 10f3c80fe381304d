"""The director: which bundle each cohort should run, signed online under the offline root.

It is a repository of its own, below `director/`, whose targets are one small policy a product. Whoever steals its
keys can choose among the bundles that were signed offline and are above the security floor, nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence

from securesystemslib.signer import Signer
from tuf.api.metadata import TargetFile, Targets

from edgewise.contracts.policy import Policy, encode_policy, policy_target
from edgewise.fleet.repository.edition import Edition
from edgewise.fleet.repository.files import Files

PLACE = "director"


def direct(edition: Edition, files: Files, policies: Sequence[Policy], signers: Sequence[Signer]) -> bool:
    """Publish the policies of some products; those of others stay. Return whether anything changed.

    Nothing is signed where nothing changed, so that devices' polls stay unanswered by bytes.
    """
    targets = edition.read("targets", Targets)
    changed = False
    for policy in policies:
        name, data = policy_target(policy.product), encode_policy(policy)
        target = TargetFile.from_data(name, data, ["sha256"])
        if name in targets.targets and targets.targets[name].hashes == target.hashes:
            continue
        folder, _, file = name.rpartition("/")
        files.write(f"targets/{folder}/{target.hashes['sha256']}.{file}", data)
        edition.change("targets", Targets).targets[name] = target
        targets = edition.read("targets", Targets)
        changed = True
    if changed:
        edition.publish(signers)
    return changed
