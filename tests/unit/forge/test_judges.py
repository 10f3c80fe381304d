from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edgewise.contracts.recipe import Format
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.task import TaskKind
from edgewise.errors import WorkerError
from edgewise.forge.judge import Judgement, refer
from edgewise.forge.judges import Assignment, Failure, Judges, LocalJudges, PoolJudges, RayJudges
from edgewise.forge.tasks.classification import Classification
from edgewise.runtimes.base import installed
from tests.unit.forge.nets import Arrays, Workshop, loaded, residual

Results = list[Judgement | Failure]


class Deadly(Classification, frozen=True, kw_only=True):
    """A task whose prediction ends its process, once it is in a worker."""

    parent: int

    def predict(self, outputs: Any, feeds: Any) -> Any:
        if os.getpid() != self.parent:
            os._exit(7)
        return super().predict(outputs, feeds)


@pytest.fixture(scope="module")
def shop() -> Workshop:
    return Workshop(residual(), samples=6)


@pytest.fixture(scope="module")
def models(shop: Workshop) -> list[bytes]:
    good = [
        shop.build({}),
        shop.build(shop.everywhere(Format.INT8_STATIC)),
        shop.build({"y": Format.INT4_WEIGHT}),
    ]
    return [*(model.SerializeToString(deterministic=True) for model in good), b"not a model"]


def assignment(shop: Workshop, task: Classification) -> Assignment:
    data = Arrays([shop.data[at].feeds for at in range(len(shop.data))], targets=[0, 1, 2, 3, 4, 5])
    reference = refer(task, loaded(shop.model), data)
    return Assignment(task=task, reference=reference, runtime=RuntimeName.ONNXRUNTIME, threads=1)


@pytest.fixture(scope="module")
def plain(shop: Workshop) -> Assignment:
    return assignment(shop, Classification(classes=10))


@pytest.fixture(scope="module")
def local(plain: Assignment, models: list[bytes]) -> Results:
    return LocalJudges(plain).judge(models)


def check(judges: Judges, models: list[bytes], expected: Results) -> None:
    done: list[int] = []
    try:
        assert judges.judge(models, report=done.append) == expected
        some = judges.judge(models[:2], positions=(1, 3))
        assert judges.judge([]) == []
    finally:
        judges.close()
    assert done == sorted(done)
    assert done[-1] == len(models)
    assert [each.samples for each in some if isinstance(each, Judgement)] == [2, 2]


def test_local_judgements_are_what_they_say(local: Results, plain: Assignment, models: list[bytes]) -> None:
    same, static, small, broken = local
    assert isinstance(same, Judgement)
    assert same.divergence == pytest.approx(0.0, abs=1e-9)
    assert (same.flip_rate, same.samples) == (0.0, 6)
    assert isinstance(static, Judgement)
    assert isinstance(small, Judgement)
    assert static.divergence > same.divergence
    assert static.sqnr_db is not None
    assert static.cosine is not None
    assert static.cosine > 0.99
    assert small.score is not None
    assert isinstance(broken, Failure)
    assert broken.reason.startswith("ONNX Runtime could not load the model")
    assert "\n" not in broken.reason
    check(LocalJudges(plain), models, local)


@pytest.mark.slow
def test_a_pool_judges_the_same(local: Results, plain: Assignment, models: list[bytes]) -> None:
    check(PoolJudges(plain, workers=2), models, local)


@pytest.mark.slow
def test_a_worker_that_dies_is_a_worker_error(shop: Workshop, models: list[bytes]) -> None:
    judges = PoolJudges(assignment(shop, Deadly(classes=10, parent=os.getpid())), workers=1)
    try:
        with pytest.raises(WorkerError, match="a worker process died"):
            judges.judge(models[:1])
    finally:
        judges.close()


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """A Ray cluster of this machine with one worker process, without the dashboard, which is slow to start."""
    if not installed("ray"):
        pytest.skip("the extra `cluster` is not installed")
    import ray  # noqa: PLC0415 - takes a second, and is an extra

    begin = ray.init

    def small(address: str | None = None, **options: Any) -> Any:
        here: dict[str, Any] = {} if address else {"num_cpus": 1, "include_dashboard": False}
        return begin(address=address, **options, **here)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setattr(ray, "init", small)
        yield "local"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_ray_cluster_judges_the_same(
    ray_address: str, local: Results, plain: Assignment, models: list[bytes]
) -> None:
    check(RayJudges(plain, address=ray_address), models, local)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_ray_worker_that_dies_is_a_worker_error(ray_address: str, shop: Workshop, models: list[bytes]) -> None:
    judges = RayJudges(assignment(shop, Deadly(classes=10, parent=os.getpid())), address=ray_address)
    try:
        with pytest.raises(WorkerError, match="the cluster lost a worker"):
            judges.judge(models[:1])
    finally:
        judges.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_no_cluster_is_a_worker_error(ray_address: str, plain: Assignment) -> None:
    assert ray_address
    with pytest.raises(WorkerError, match="no Ray cluster answers at 'nowhere'"):
        RayJudges(plain, address="nowhere")


def test_an_output_that_is_not_finite_is_infinitely_far(plain: Assignment, shop: Workshop) -> None:
    model = shop.build({})
    for each in model.graph.initializer:
        if each.name == "fc_b":
            each.CopyFrom(_with_nan(each.dims[0]))
    (found,) = LocalJudges(plain).judge([model.SerializeToString()])
    assert isinstance(found, Judgement)
    assert found.divergence >= 1e6
    assert plain.task.kind == TaskKind.CLASSIFICATION


def _with_nan(size: int) -> Any:
    from onnx import numpy_helper  # noqa: PLC0415

    return numpy_helper.from_array(np.full(size, np.nan, np.float32), "fc_b")
