"""The manifest of a bundle: what was sealed, for whom, with which evidence, and the digest of every file.

Format version 1 of the archive around it is docs/reference/bundle-format.md. Digests are SHA-256 in hex.
"""

from __future__ import annotations

from enum import StrEnum
from math import inf, isfinite

from msgspec import UNSET, UnsetType

from edgewise.contracts.base import Value
from edgewise.contracts.budget import Budget, LimitVerdict, Verdict
from edgewise.contracts.evidence import Figures
from edgewise.contracts.recipe import Recipe
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.task import AudioOptions, DetectionOptions, ImageOptions, TextOptions
from edgewise.contracts.verification import VariantCalibration

BUNDLE_VERSION = 1


class DType(StrEnum):
    """Element types of tensors in a bundle, little-endian."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"
    FLOAT16 = "float16"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    BOOL = "bool"
    OPAQUE = "opaque"
    """Bytes of a type numpy has no name for (packed int4, bfloat16): `shape` is its length in bytes."""


class SealedFile(Value, kw_only=True):
    """A file of the bundle. `path` is relative, with forward slashes; `size` in bytes."""

    path: str
    size: int
    digest: str


class TensorPlace(Value, kw_only=True):
    """A tensor in C order at `offset` bytes of a file, `size` bytes long; offsets are multiples of 64."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    offset: int
    size: int


class Port(Value, kw_only=True):
    """An input or output of the model; an axis that is None is dynamic."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Preprocessing(Value, kw_only=True):
    """How a sample becomes the model's inputs. All None: the samples are tensors already."""

    image: ImageOptions | None = None
    audio: AudioOptions | None = None
    text: TextOptions | None = None
    """`tokenizer` is the path of a file of the bundle."""
    code: str = ""
    """The name of the user's own code, which a bundle does not hold; empty where there is none."""


class Postprocessing(Value, kw_only=True):
    """How outputs become an answer: the task's kind, its options and the names of its classes."""

    kind: str
    detection: DetectionOptions | None = None
    labels: tuple[str, ...] = ()


class Golden(Value, kw_only=True):
    """Inputs that every variant was run on at sealing: per sample the model's inputs, all in one file."""

    path: str
    split: str
    """The split they were drawn from."""
    samples: tuple[tuple[TensorPlace, ...], ...]


class GoldenOutput(Value, kw_only=True):
    """What one output was at sealing, and how far a device may be from it: |found - given| <= tolerance."""

    tensor: TensorPlace
    tolerance: float


class GoldenOutputs(Value, kw_only=True):
    """A variant's outputs for the golden inputs, in their order, all in one file."""

    path: str
    samples: tuple[tuple[GoldenOutput, ...], ...]


class PageHinkley(Value, kw_only=True):
    """How the Page-Hinkley test (Page, Biometrika 41, 1954) looks at a score whose mean on good data is `mean`.

    Upwards it adds up x - mean - allowance, downwards mean - x - allowance, and starts anew at 0. On good data such a
    sum is above h at a given input with at most exp(-rate h): a device sets h for the false alarms that it can bear.
    """

    mean: float
    allowance: float
    rate_up: float
    rate_down: float

    def __post_init__(self) -> None:
        """Raise ValueError where a number is out of its range."""
        if not (isfinite(self.mean) and all(0 < each < inf for each in (self.allowance, self.rate_up, self.rate_down))):
            raise ValueError("a Page-Hinkley test needs a finite mean, and an allowance and rates above 0")


class DriftReference(Value, kw_only=True):
    """The distribution of one score on good data, and how far live inputs may be from it.

    `edges` part the score's axis into `len(edges) + 1` bins with the given `shares` (sum 1). The cut-offs
    are for windows of `window` inputs; good data pass each of them `keep` of the time.
    """

    score: str
    edges: tuple[float, ...]
    shares: tuple[float, ...]
    window: int
    psi_cutoff: float
    """Population stability index: sum of (p - q) ln(p / q)."""
    ks_cutoff: float
    """Kolmogorov-Smirnov: the largest difference of the cumulative shares at an edge."""
    keep: float = 0.99
    page_hinkley: PageHinkley | UnsetType = UNSET
    """Not in the JSON where it is not set, so that bundles sealed before it was there keep their canonical form."""

    def __post_init__(self) -> None:
        """Raise ValueError where the fields contradict one another."""
        if not self.edges or len(self.shares) != len(self.edges) + 1 or self.window < 1 or not 0 < self.keep < 1:
            raise ValueError(f"{len(self.edges)} edges, {len(self.shares)} shares, windows of {self.window}")


class Variant(Value, kw_only=True):
    """One executable form of the model, for one runtime, precision and class of device."""

    name: str
    runtime: RuntimeName
    precision: str
    """The format most regions have; `mixed:` before it where others have another one."""
    device_class: str
    threads: int
    model: str
    """Path of the ONNX graph in the bundle."""
    weights: str | None = None
    """Path of the graph's external data, None where the graph holds all."""
    tensors: tuple[TensorPlace, ...] = ()
    """Where each tensor lies in `weights`."""
    source_digest: str
    """Of the model in one file, as it was measured and verified."""
    recipe: Recipe
    recipe_digest: str
    figures: Figures
    verdicts: tuple[LimitVerdict, ...]
    verdict: Verdict
    """Against the budget; fp32 as the last resort may fail it."""
    verification: Verdict | None = None
    """That of verification.json, None where this variant has none."""
    calibration: VariantCalibration = VariantCalibration()
    drift: tuple[DriftReference, ...] = ()
    golden: GoldenOutputs


class Manifest(Value, kw_only=True):
    """Everything a device, a server or a reviewer knows about a bundle before running it."""

    format_version: int = BUNDLE_VERSION
    product: str
    version: str
    """Three or four whole numbers with points between them; compared number by number."""
    security_floor: str
    """The oldest version of this product that a device may still run once it has seen this one."""
    sealed_with: str
    """edgewise and its version."""
    task: str
    metric: str
    target: str
    model_digest: str
    """Of the fp32 model that everything was made from."""
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    preprocessing: Preprocessing
    postprocessing: Postprocessing
    budget: Budget
    chosen: str
    """Name of the variant to run."""
    fallback: str
    """Name of the fp32 variant, the last resort; the chosen one where fp32 was chosen or left out."""
    variants: tuple[Variant, ...]
    golden: Golden
    model_signature_key: str | None = None
    """SHA-256 of the PEM of the public key of `model.sig`; None where the bundle has no such file."""
    files: tuple[SealedFile, ...]
    """Every file but the manifest itself and `model.sig`, ascending by path."""


def version_numbers(version: str) -> tuple[int, ...]:
    """Return a version as numbers that compare; raises ValueError where it is none.

    >>> version_numbers("1.10.0") > version_numbers("1.9.3")
    True
    """
    parts = version.split(".")
    if not 3 <= len(parts) <= 4 or any(not _is_number(part) for part in parts):
        raise ValueError(f"{version!r} is not a version")
    return tuple(int(part) for part in parts)


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part) <= 9 and (part == "0" or part[0] != "0")
