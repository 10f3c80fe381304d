"""The releases: sealed bundles whose seal was checked."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from edgewise.contracts.base import Value
from edgewise.contracts.rollout import Release
from edgewise.errors import ConflictError
from edgewise.fleet.store.schema import release


class ReleaseView(Value, kw_only=True):
    """A release as it is listed."""

    product: str
    version: str
    digest: str
    """SHA-256 of the manifest: what devices report."""
    sha256: str
    """Of the whole bundle."""
    size_bytes: int
    object: str
    """Path in the store."""
    created_ms: int
    created_by: str

    @property
    def contract(self) -> Release:
        """The release as rollouts name it."""
        return Release(product=self.product, version=self.version, digest=self.digest)


async def add(connection: AsyncConnection, view: ReleaseView, manifest: bytes) -> None:
    """Add a release. Raises ConflictError where the version is taken: a release never changes."""
    row = {name: getattr(view, name) for name in ReleaseView.__struct_fields__}
    try:
        await connection.execute(sql.insert(release).values(row | {"document": manifest}))
    except IntegrityError as error:
        raise ConflictError(
            f"{view.product} {view.version} is published already",
            required="a new version for each bundle",
            next_step="seal it with a higher version",
        ) from error


async def listed(
    connection: AsyncConnection, *, products: Sequence[str] = (), product: str | None = None
) -> list[ReleaseView]:
    """Return releases, newest first."""
    question = sql.select(*_columns()).order_by(release.c.created_ms.desc(), release.c.version.desc())
    if products:
        question = question.where(release.c.product.in_(products))
    if product is not None:
        question = question.where(release.c.product == product)
    return [ReleaseView(**row) for row in (await connection.execute(question)).mappings()]


async def get(connection: AsyncConnection, product: str, version: str) -> ReleaseView | None:
    """Return one release."""
    question = sql.select(*_columns()).where(release.c.product == product, release.c.version == version)
    row = (await connection.execute(question)).mappings().first()
    return None if row is None else ReleaseView(**row)


async def manifest(connection: AsyncConnection, product: str, version: str) -> bytes | None:
    """Return the manifest of a release, as JSON."""
    question = sql.select(release.c.document).where(release.c.product == product, release.c.version == version)
    return (await connection.execute(question)).scalar_one_or_none()


def _columns() -> list[sql.Column[object]]:
    return [release.c[name] for name in ReleaseView.__struct_fields__]
