"""Each failure of python-tuf as one of our errors: refusals apart from network failures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tuf.api import exceptions as tuf

from edgewise.device.trust.writing import refused
from edgewise.errors import (
    EdgewiseError,
    EndlessDataError,
    ExpiredError,
    MetadataError,
    MixedMetadataError,
    RollbackError,
    SignatureError,
    TransferError,
    TrustError,
    UnreachableError,
)

TOP_LEVEL = ("root", "timestamp", "snapshot")


@contextlib.contextmanager
def refusals(folder: Path, fetched: Callable[[], str]) -> Iterator[None]:
    """Translate what happens inside. `fetched` names the role whose metadata were fetched last."""
    try:
        yield
    except EdgewiseError:
        raise
    except tuf.RepositoryError as error:
        raise _refusal(error, fetched()) from error
    except tuf.DownloadLengthMismatchError as error:
        raise EndlessDataError(
            f"{fetched()}: {error}",
            required="no more bytes than were signed or are allowed",
            next_step="the server is broken or hostile: report it; the device goes on with what it has",
        ) from error
    except tuf.DownloadError as error:
        raise _cause(error) from error
    except OSError as error:
        raise refused(folder, error) from error


def _refusal(error: tuf.RepositoryError, role: str) -> TrustError:
    found = f"{role}: {str(error) or type(error).__name__}"
    if isinstance(error, tuf.UnsignedMetadataError):
        return SignatureError(
            found,
            required="enough signatures by the keys that the trusted root names",
            next_step="report it: somebody offers metadata that nobody trusted signed",
        )
    if isinstance(error, tuf.ExpiredMetadataError):
        return ExpiredError(
            str(error),  # it names the role, which may be one fetched before
            required="metadata that have not expired",
            next_step="check the device's clock, then whether the repository is still being signed",
        )
    if isinstance(error, tuf.LengthOrHashMismatchError) or (
        isinstance(error, tuf.BadVersionNumberError) and role not in TOP_LEVEL
    ):
        return MixedMetadataError(
            found,
            required="the metadata that the signed snapshot or timestamp names",
            next_step="try again; if it stays, the server mixes states of the repository: report it",
        )
    if isinstance(error, tuf.BadVersionNumberError):
        return RollbackError(
            found,
            required="no version below one that was already trusted",
            next_step="report it: somebody offers old metadata as new",
        )
    return MetadataError(
        found,
        required="metadata as the specification has them",
        next_step="report it; the device goes on with what it has",
    )


def _cause(error: tuf.DownloadError) -> TransferError:
    """Return our own error under one of python-tuf's."""
    if isinstance(error.__cause__, TransferError):
        return error.__cause__
    return UnreachableError(str(error), required="a server that answers", next_step="try again later")
