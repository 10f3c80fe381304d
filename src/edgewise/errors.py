"""Everything edgewise raises on purpose, in one tree.

    EdgewiseError
    +-- InputError               what the user gave cannot be used (exit 2)
    |   +-- ConfigError          edgewise.toml or an option
    |   +-- ModelError           a model file or module
    |   |   +-- HostileModelError    refused for safety: traversal, cycle, absurd size
    |   +-- DataError            samples or labels
    |   +-- TaskError            the task does not go with the model or the data
    |   +-- TargetError          an unknown or unusable target profile
    |   +-- KeyFileError         a key file, its passphrase or its kind is wrong
    |   +-- RepositoryError      the signed repository is not in the state that a change needs
    |   +-- TelemetryError       an envelope that is malformed, contradicts itself or is too large
    |   +-- RolloutError         a rollout that cannot be, or a command that its state does not allow
    |   +-- BundleError          a bundle or delta is not one, is damaged, or was refused for safety
    |       +-- UnsafePathError      it names a file outside its folder, a link, or no plain name
    |       +-- UnsignedFileError    it holds a file that its signed manifest does not list
    +-- MissingExtraError        an optional dependency is not installed (exit 2)
    +-- OutputError              a result could not be written (exit 2)
    +-- ExecutionError           a runtime could not load or run a variant (exit 1)
    |   +-- UnsafeModelError         it names data outside its folder
    |   +-- CustomOperatorError      it needs operators of a library, and none is ever loaded
    |   +-- OutOfMemoryError         an execution needs more memory than there is
    |   +-- HungError                it hung in the agent's own process, which ended for it
    +-- WorkerError              a helper process died or hung (exit 1)
    +-- InstallError             a bundle did not pass what this device asks of it; the one before runs (exit 1)
    |   +-- GoldenError              other outputs than when it was sealed
    |   +-- OverBudgetError          slower here than its budget
    |   +-- QuotaError               larger than the device's quota
    |   +-- GivenUpError             it crashed or hung again and again
    |   +-- SlotError                a slot's files or the state cannot be used
    +-- AgentError               the agent of a device: not enrolled, enrolled already, running or not (exit 1)
    +-- MissingSignaturesError   a change of the repository is staged until others sign it (exit 1)
    +-- TrustError               refused for security; what was trusted before stays (exit 1)
    |   +-- SignatureError           too few valid signatures, or by keys that nobody trusts
    |   +-- RollbackError            older than what was seen, or below the signed floor
    |   +-- ExpiredError             past its date: withheld (a freeze), or signed by nobody any more
    |   +-- MixedMetadataError       parts of different states of a repository
    |   +-- MetadataError            malformed, or a part that it promises is missing
    |   +-- DigestError              not the bytes that were signed
    |   +-- EndlessDataError         more bytes than were signed or are allowed
    |   +-- UnsafeAddressError       an address or a redirect outside what is allowed
    |   +-- DisagreementError        the director and the image repository do not say the same
    |   +-- UnknownTargetError       nobody signed a target of this name
    +-- TransferError            the network failed; try again later (exit 1)
    |   +-- UnreachableError         no connection, or it broke
    |   +-- HttpStatusError          the server answered with an error
    |   +-- SlowRetrievalError       slower than the minimum, or past the deadline
    |   +-- TruncatedError           fewer bytes than the server promised
    |   +-- MalformedReplyError      the server answered with something else than its protocol says
    +-- StorageError             the fleet's database or object store did not answer (exit 1)
    +-- FleetError               the fleet server refuses a request (exit 1)
        +-- UnauthenticatedError     nobody known sent it
        +-- ForbiddenError           the one who sent it may not do this
        +-- NotFoundError            what it names is not there
        +-- ConflictError            it exists already, or has changed
        +-- BusyError                more is under way than the server takes on

A security refusal (TrustError) is never a network failure (TransferError): the first is reported, the
second is tried again.

Each message says what was found, what was required and what to do next. The command line
prints it without a traceback; `--debug` shows the traceback too.
"""

from __future__ import annotations


class EdgewiseError(Exception):
    """Root of all errors of this package.

    `found` says what was met, `required` what would have been right, `next_step` what to do.
    """

    exit_code = 1

    def __init__(self, found: str, *, required: str = "", next_step: str = "") -> None:
        """Keep the three parts; `str()` joins them, one a line."""
        self.found = found
        self.required = required
        self.next_step = next_step
        super().__init__(found, required, next_step)

    def __str__(self) -> str:
        """Return the parts that are not empty, one a line."""
        lines = [self.found]
        if self.required:
            lines.append(f"required: {self.required}")
        if self.next_step:
            lines.append(f"next: {self.next_step}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle across a process pool with the keyword-only parts intact."""
        return _rebuild, (type(self), self.found, self.required, self.next_step)


def _rebuild(kind: type[EdgewiseError], found: str, required: str, next_step: str) -> EdgewiseError:
    return kind(found, required=required, next_step=next_step)


class InputError(EdgewiseError):
    """What the user gave cannot be used."""

    exit_code = 2


class ConfigError(InputError):
    """A key, unit or value of edgewise.toml, or an option, is wrong."""


class ModelError(InputError):
    """A model file or module cannot be read, or holds something unsupported."""


class HostileModelError(ModelError):
    """A model file was refused for safety."""


class DataError(InputError):
    """Samples or labels are missing, of the wrong type or shape, or not finite."""


class TaskError(InputError):
    """The task does not go with the model or the data."""


class TargetError(InputError):
    """A target profile is unknown or cannot be used here."""


class TelemetryError(InputError):
    """A telemetry envelope is malformed, contradicts itself or passes a limit."""


class RolloutError(InputError):
    """A rollout cannot be as described, or its state does not allow a command."""


class BundleError(InputError):
    """A bundle or a delta is not one, is damaged, or was refused for safety."""


class UnsafePathError(BundleError):
    """A bundle names a file outside its folder, a link, or a name that some file system takes for something else."""


class UnsignedFileError(BundleError):
    """A bundle holds a file that its signed manifest does not list: a library beside the model, say."""


class MissingExtraError(EdgewiseError):
    """An optional dependency is needed and not installed."""

    exit_code = 2


class OutputError(EdgewiseError):
    """A result could not be written."""

    exit_code = 2


class ExecutionError(EdgewiseError):
    """A runtime could not load or run a variant."""


class UnsafeModelError(ExecutionError):
    """A model names data outside its folder."""


class CustomOperatorError(ExecutionError):
    """A model needs operators that the runtime does not have; libraries of custom operators are never loaded."""


class OutOfMemoryError(ExecutionError):
    """A runtime did not get the memory that loading or an execution needs."""


class HungError(ExecutionError):
    """A model hung inside one operator, and the agent that it ran in ended itself for it."""


class WorkerError(EdgewiseError):
    """A helper process died, hung or passed its memory limit."""


class InstallError(EdgewiseError):
    """A bundle did not pass what this device asks of it. What ran before still runs."""


class GoldenError(InstallError):
    """A variant gives other outputs here than when it was sealed."""


class OverBudgetError(InstallError):
    """A variant is slower here than its budget."""


class QuotaError(InstallError):
    """A bundle is larger than the device's quota lets it be."""


class GivenUpError(InstallError):
    """A bundle that crashed or hung here again and again is asked for again."""


class SlotError(InstallError):
    """The files of a slot, or the state, cannot be used."""


class AgentError(EdgewiseError):
    """A device's agent cannot do what is asked: not enrolled, enrolled already, running already or not running."""


class KeyFileError(InputError):
    """A key file cannot be read, is of another kind, or has another passphrase."""


class RepositoryError(InputError):
    """The signed repository is not in the state that a change needs."""


class MissingSignaturesError(EdgewiseError):
    """A change of the signed repository is staged: other keys must sign it too."""


class TrustError(EdgewiseError):
    """Refused for security. What was trusted before stays trusted and in use."""


class SignatureError(TrustError):
    """Too few valid signatures, or by keys that are not trusted for it."""


class RollbackError(TrustError):
    """Older than what was already seen, or below the signed security floor."""


class ExpiredError(TrustError):
    """Past its expiry date: somebody withholds newer metadata, or nobody signs any more."""


class MixedMetadataError(TrustError):
    """Metadata that belong to different states of a repository."""


class MetadataError(TrustError):
    """Metadata that are malformed, or do not say what they must."""


class DigestError(TrustError):
    """A file is not the one that was signed: its digest or length differs."""


class EndlessDataError(TrustError):
    """The server sends more bytes than were signed or are allowed."""


class UnsafeAddressError(TrustError):
    """An address of a scheme that is not allowed, or a redirect to one."""


class DisagreementError(TrustError):
    """The director asks for something that the image repository does not hold with the same digest."""


class UnknownTargetError(TrustError):
    """No trusted role signed a target of this name."""


class TransferError(EdgewiseError):
    """The network failed; nothing is known about anybody's intent."""


class UnreachableError(TransferError):
    """No connection came about, or it broke."""


class HttpStatusError(TransferError):
    """The server answered with an error status."""

    status = 0
    retry_after_s: float | None = None
    """What the server asked to wait."""


class SlowRetrievalError(TransferError):
    """A transfer was slower than the minimum, or was not over by its deadline."""


class TruncatedError(TransferError):
    """A transfer ended before the length that the server promised."""


class MalformedReplyError(TransferError):
    """A server answered with something else than its protocol says."""


class StorageError(EdgewiseError):
    """The fleet's database or object store did not answer, or refused."""


class FleetError(EdgewiseError):
    """The fleet server refuses a request."""


class UnauthenticatedError(FleetError):
    """Nobody known has sent the request: no token, a wrong one, a bad signature or a replay."""


class ForbiddenError(FleetError):
    """Somebody known has sent it, who may not do this."""


class NotFoundError(FleetError):
    """What the request names is not there, or not for the one who asks."""


class ConflictError(FleetError):
    """It exists already, or has changed meanwhile."""


class BusyError(FleetError):
    """More is under way than the server takes on; nothing was kept, and it is worth asking again later."""
