"""Releases: sealed bundles, published by a signer and never changed."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, PathParameter

from edgewise.errors import BundleError, ForbiddenError, NotFoundError
from edgewise.fleet import publish
from edgewise.fleet.api.guard import OPERATOR_SECURITY, operator_of
from edgewise.fleet.api.services import Services
from edgewise.fleet.auth import Access
from edgewise.fleet.store import audit, releases
from edgewise.fleet.store.releases import ReleaseView

PathName = Annotated[str, PathParameter(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}$")]
MEDIA_TYPES = {"json": "application/json", "md": "text/markdown; charset=utf-8"}


@put(
    "/api/v1/releases/{product:str}/{version:str}",
    opt={"access": Access.SIGN},
    security=OPERATOR_SECURITY,
    tags=["releases"],
    status_code=201,
    request_max_body_size=None,
)
async def put_release(
    product: PathName,
    version: PathName,
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
) -> ReleaseView:
    """Publish a sealed bundle: the body is the file. Its seal must be by a key that the server was told to trust."""
    signer, now_ms = operator_of(request), services.clock()
    signer.sees(product, f"product {product}")
    if not services.trusted:
        raise ForbiddenError("the server trusts no keys", next_step="start it with --trusted FOLDER, of files *.pub")
    async with publish.taken(request.stream(), limit_bytes=services.settings.bundle_limit_bytes) as path:
        checked = await asyncio.to_thread(publish.check, path, services.trusted)
        if (checked.product, checked.version) != (product, version):
            raise BundleError(f"a bundle of {checked.product} {checked.version}", required=f"{product} {version}")
        view = await publish.keep(services.objects, path, checked, now_ms=now_ms, actor=signer.actor)
    async with services.database.write() as connection:
        await releases.add(connection, view, checked.manifest)
        await audit.record(
            services.database,
            connection,
            at_ms=now_ms,
            actor=signer.actor,
            action="release.publish",
            subject=f"{product} {version}",
            product=product,
            detail={"digest": view.digest, "sha256": view.sha256, "size_bytes": view.size_bytes},
        )
    return view


@get("/api/v1/releases", opt={"access": Access.READ}, security=OPERATOR_SECURITY, tags=["releases"])
async def listed(
    request: Request[Any, Any, Any], services: NamedDependency[Services], product: FromQuery[str | None] = None
) -> list[ReleaseView]:
    """List releases, newest first."""
    async with services.database.read() as connection:
        return await releases.listed(connection, products=operator_of(request).products, product=product)


@get(
    "/api/v1/releases/{product:str}/{version:str}",
    opt={"access": Access.READ},
    security=OPERATOR_SECURITY,
    tags=["releases"],
)
async def one(
    product: FromPath[str], version: FromPath[str], request: Request[Any, Any, Any], services: NamedDependency[Services]
) -> dict[str, Any]:
    """Show a release with its manifest: variants, figures, verdicts and budget."""
    view = await _seen(request, services, product, version)
    async with services.database.read() as connection:
        manifest = await releases.manifest(connection, product, version)
    return {"release": view, "manifest": msgspec.json.decode(manifest or b"null")}


@get(
    "/api/v1/releases/{product:str}/{version:str}/{file:str}",
    opt={"access": Access.READ},
    security=OPERATOR_SECURITY,
    tags=["releases"],
)
async def shown(
    product: FromPath[str],
    version: FromPath[str],
    file: FromPath[str],
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
) -> Response[bytes]:
    """Give the evidence, the model card or the bill of materials of a release."""
    view = await _seen(request, services, product, version)
    if file not in publish.SHOWN:
        raise NotFoundError(f"there is no file {file[:60]} to show", required=", ".join(publish.SHOWN))
    folder = publish.release_folder(product, version)
    data = await services.objects.read(f"{folder}/{view.sha256}/{file}")
    return Response(data, media_type=MEDIA_TYPES[file.rpartition(".")[2]])


async def _seen(request: Request[Any, Any, Any], services: Services, product: str, version: str) -> ReleaseView:
    operator_of(request).sees(product, f"release {product} {version}")
    async with services.database.read() as connection:
        found = await releases.get(connection, product, version)
    if found is None:
        raise NotFoundError(f"there is no release {product} {version}")
    return found


ROUTES = (put_release, listed, one, shown)
