"""One run of `optimize`: its phases, in order."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edgewise import __version__
from edgewise.contracts.budget import Verdict, judge
from edgewise.contracts.evidence import Candidate, Figures, Status
from edgewise.contracts.project import Effort, Project, RunProject
from edgewise.contracts.recipe import Recipe
from edgewise.contracts.run import BudgetEvidence, Chosen, Data, Run
from edgewise.contracts.target import RuntimeName
from edgewise.errors import EdgewiseError
from edgewise.forge.agreement import agreements
from edgewise.forge.cache import Cache, digest, user_cache, write_atomically
from edgewise.forge.costs import Profile, profiled
from edgewise.forge.evidence import (
    accuracy_of,
    candidate_of,
    flip_evidence,
    histogram_evidence,
    region_evidence,
)
from edgewise.forge.explore import Explored, Explorer
from edgewise.forge.further import on_runtime
from edgewise.forge.importing.sandbox import Imported
from edgewise.forge.judge import HELD_INPUTS, Comparison, Reference, compare, refer
from edgewise.forge.judges import Assignment, Judges, LocalJudges, PoolJudges, RayJudges
from edgewise.forge.kept import KEPT, write_kept
from edgewise.forge.measure.agent_lab import AgentLab
from edgewise.forge.measure.environment import cores, environment
from edgewise.forge.measure.samples import timed_samples
from edgewise.forge.measure.size import size_mib
from edgewise.forge.measured import Peaks, Shortlisted, measure_latency, with_footprint, with_latency
from edgewise.forge.on_device import on_device
from edgewise.forge.prepare import SPREAD, Limits, Prepared, prepare
from edgewise.forge.progress import Progress
from edgewise.forge.search.choose import advice, choose, closest, tolerance, unbeaten
from edgewise.forge.search.plan import PLANS, SearchPlan
from edgewise.forge.shortlist import shortlisted
from edgewise.runtimes.base import Runtime
from edgewise.runtimes.timing import Plan

FP32 = "fp32"
# Below this much judging in one process, starting workers costs more than it saves (seconds).
_WORTH_WORKERS_S = 6.0
_EXPECTED_JUDGEMENTS = 120
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 4000
_SENT_INPUTS = 1 << 40


class Job:
    """One run; its methods are its phases, in order."""

    def __init__(
        self,
        project: Project,
        *,
        base: Path,
        output: Path,
        progress: Progress,
        cluster: str | None,
        fresh: bool,
        lab: AgentLab | None,
    ) -> None:
        """See `edgewise.forge.optimize.optimize`."""
        self._project = project
        self._base = base
        self._output = output
        self._progress = progress
        self._cluster = cluster
        self._lab = lab
        self._plan: SearchPlan = PLANS[Effort(project.search.effort)]
        self._thorough = self._plan.sensitivity_samples > 0
        """Whether the effort allows for more than the search itself."""
        self._seconds: dict[str, float] = {}
        self._started = time.monotonic()
        self._cache = Cache(output / ".edgewise" / "found", fresh=fresh)
        self._costs = Cache(user_cache() / "measured", fresh=fresh)

    def prepare(self, imported: Callable[[], Imported]) -> Prepared:
        """Read and check everything; `imported` waits for the model. Raises EdgewiseError."""
        self._progress.start("import", None)
        plan = self._plan
        limits = Limits(plan.select_samples, plan.judged_samples, plan.test_samples)
        prepared = prepare(self._project, base=self._base, imported=imported, limits=limits)
        if self._lab is not None:
            prepared = on_device(prepared, self._lab)
        self._lap("import", self._started)
        return prepared

    def run(self, prepared: Prepared) -> Run:
        """Do all the rest. Raises EdgewiseError."""
        kept = RunProject(base=str(self._base.absolute()), project=self._project)
        write_atomically(self._output / "project.json", msgspec.json.format(msgspec.json.encode(kept), indent=1))
        search = time.monotonic()
        self._progress.start("fp32 on the select split", len(prepared.judged))
        # Workers of a cluster cannot read the files of this machine: all inputs travel with the reference.
        held = HELD_INPUTS if self._cluster is None else _SENT_INPUTS
        reference = refer(
            prepared.task, prepared.fp32, prepared.judged, held_inputs=held, report=self._progress.advance
        )
        context = self._context(prepared)
        original = prepared.imported.original
        footprint = Peaks(prepared, [(original, prepared.runtime.name)], reference.feeds)
        judges = self._judges(prepared, reference, prepared.runtime, count=_EXPECTED_JUDGEMENTS)
        try:
            explorer = Explorer(
                prepared,
                self._plan,
                judges=judges,
                reference=reference,
                cache=self._cache,
                costs=self._costs,
                context=context,
                seed=self._project.search.seed,
                progress=self._progress,
                settle=lambda: footprint.mib(original, prepared.runtime.name),
            )
            explored = explorer.explore()
        finally:
            judges.close()
            footprint.close()
        self._lap("search", search)
        measuring = time.monotonic()
        fp32_mib = footprint.mib(original, prepared.runtime.name)
        fp32, listed = self._measure(prepared, reference, explored, context, fp32_mib=fp32_mib)
        self._lap("measure", measuring)
        final = time.monotonic()
        run = self._conclude(prepared, reference, explored, fp32, listed)
        self._lap("final evidence", final)
        self._lap("total", self._started)
        run = msgspec.structs.replace(run, seconds=self._seconds)
        write_atomically(self._output / "evidence.json", msgspec.json.format(msgspec.json.encode(run), indent=1))
        return run

    def _context(self, prepared: Prepared) -> str:
        """Digest of all that judgements and measurements depend on besides a model's bytes."""
        execute = prepared.runtime
        return digest(
            __version__,
            prepared.imported.digest,
            prepared.calibrate.digest(),
            prepared.judged.digest(),
            f"{prepared.task.kind} {execute.name} {execute.version()} {prepared.threads} {self._project.search.seed}",
        )

    def _judges(self, prepared: Prepared, reference: Reference, execute: Runtime, *, count: int) -> Judges:
        assignment = Assignment(
            task=prepared.task,
            reference=reference,
            runtime=RuntimeName(execute.name),
            threads=prepared.threads,
        )
        if self._cluster is not None:
            return RayJudges(assignment, address=self._cluster)
        workers = self._project.search.workers or max(1, cores() // prepared.threads)
        begin = time.monotonic()
        for feeds in reference.feeds[:4]:
            prepared.fp32.run(feeds)
        each = (time.monotonic() - begin) / min(4, len(reference.feeds))
        work = each * len(reference.feeds) * count
        if workers == 1 or not self._thorough or work < _WORTH_WORKERS_S:
            return LocalJudges(assignment)
        return PoolJudges(assignment, workers=workers)

    def _measure(
        self, prepared: Prepared, reference: Reference, explored: Explored, context: str, *, fp32_mib: float | None
    ) -> tuple[Candidate, list[Shortlisted]]:
        """Write and time the shortlist; return fp32 as a candidate, and the shortlist with its figures."""
        feeds = timed_samples(reference.feeds, count=self._plan.timed_samples)
        folder = self._output / ".edgewise" / "shortlist"
        original = Candidate(
            name=FP32,
            recipe=Recipe(name=FP32, regions=()),
            status=Status.MEASURED,
            path=None,
            runtime=prepared.runtime.name,
            higher_is_better=prepared.task.higher_is_better,
            score=reference.score,
            metrics=reference.metrics,
            flip_rate=0.0,
            cosine=1.0,
            divergence=0.0,
        )
        shortlist = shortlisted(
            explored,
            folder=folder,
            count=self._plan.shortlist,
            most=self._most(prepared),
            budget=self._project.budget,
            reference=original,
        )
        if prepared.further:
            file = prepared.imported.original
            own = msgspec.structs.replace(original, size_mib=size_mib(file))  # which a limit on size asks for
            listed = [Shortlisted(candidate=own, file=file, digest=FP32), *shortlist]
            shortlist += self._further(prepared, reference, listed)
            context = digest(context, *(f"{each.name} {each.version()}" for each in prepared.further))
        times, measured = measure_latency(
            prepared,
            shortlist,
            feeds,
            plan=Plan(
                rounds=_MOST_ROUNDS,
                least=_LEAST_ROUNDS,
                budget_s=self._plan.measure_seconds * (1 + len(prepared.further)),
                precision=self._plan.precision,
                seed=self._project.search.seed,
            ),
            costs=self._costs,
            context=context,
            progress=self._progress,
        )
        self._progress.start("memory, size and energy", len(measured))
        whole = Shortlisted(candidate=with_latency(original, times), file=prepared.imported.original, digest=FP32)
        fp32 = with_footprint(prepared, whole, feeds, peak=fp32_mib, session=prepared.fp32)
        if not self._thorough and self._project.budget.peak_memory_mib is None:
            return fp32, measured  # only what is chosen gets a footprint, beside the final evidence
        ran = [each for each in measured if each.candidate.status is Status.MEASURED]
        files = [(each.file, each.candidate.runtime) for each in ran]
        done = []
        with Peaks(prepared, files, feeds) as peaks:
            for count, each in enumerate(measured, 1):
                candidate = each.candidate
                if candidate.status is Status.MEASURED:
                    peak = peaks.mib(each.file, candidate.runtime)
                    session = prepared.executing(candidate).load(each.file, threads=prepared.threads)
                    candidate = with_footprint(prepared, each, feeds, peak=peak, session=session)
                done.append(msgspec.structs.replace(each, candidate=candidate))
                self._progress.advance(count)
        return fp32, done

    def _further(self, prepared: Prepared, reference: Reference, listed: Sequence[Shortlisted]) -> list[Shortlisted]:
        """Judge `listed` on each further runtime, against fp32 on the first as everything is."""
        found: list[Shortlisted] = []
        for execute in prepared.further:
            judges = self._judges(prepared, reference, execute, count=len(listed))
            self._progress.start(f"the shortlist on {execute.name}", len(listed))
            try:
                judged = judges.judge([each.file.read_bytes() for each in listed], report=self._progress.advance)
            finally:
                judges.close()
            found += [on_runtime(each, execute.name, one) for each, one in zip(listed, judged, strict=True)]
        return found

    def _conclude(
        self,
        prepared: Prepared,
        reference: Reference,
        explored: Explored,
        fp32: Candidate,
        listed: list[Shortlisted],
    ) -> Run:
        """Choose, open the test split once, and put everything into the document."""
        budget = self._project.budget
        measured = [fp32, *(each.candidate for each in listed)]
        winner = choose(measured, fp32, budget, most=self._most(prepared))
        names = {each.candidate.name for each in listed}
        screened = [
            candidate_of(
                trial, runtime=prepared.runtime.name, higher_is_better=prepared.task.higher_is_better, size_mib=None
            )
            for trial in explored.trials
            if trial.recipe.name not in names
        ]
        best = next((each for each in listed if winner is not None and each.candidate.name == winner.name), None)
        file = best.file if best is not None else prepared.imported.original
        lacking = [] if winner is None or winner.peak_memory_mib is not None else [(file, winner.runtime)]
        with Peaks(prepared, lacking, reference.feeds) as peaks:
            comparison = self._test(prepared, file, winner)
            if winner is not None and lacking:
                one = Shortlisted(candidate=winner, file=file, digest="")
                session = prepared.executing(winner).load(file, threads=prepared.threads)
                peak = peaks.mib(file, winner.runtime)
                winner = with_footprint(prepared, one, reference.feeds[:4], peak=peak, session=session)
        reference_figures = self._reference(prepared, comparison, fp32)
        chosen = self._chosen(comparison, winner, file) if winner is not None else None
        verdicts = judge(budget, chosen, reference_figures) if chosen else ()
        fits = chosen is not None and all(each.verdict is not Verdict.FAIL for each in verdicts)
        execute = prepared.runtime if winner is None else prepared.executing(winner)
        profile = self._profile_of(prepared, explored, reference, file, execute) if best is not None else None
        agreement = (
            agreements(prepared, file, execute, self._progress)
            if best is not None and self._thorough and self._lab is None
            else ()
        )
        if chosen is not None and fits:
            chosen = msgspec.structs.replace(chosen, path=str(self._path(chosen.name)))
            files = {each.candidate.name: each.file for each in listed}
            kept = {each.name: files[each.name] for each in unbeaten(measured) if each.name in files}
            self._ship({**kept, chosen.name: file})
            measured = [
                msgspec.structs.replace(each, path=str(self._path(each.name))) if each.name in kept else each
                for each in measured
            ]
        if explored.bench.equalised:  # what the recipe speaks about: verification compares the variant with it
            model = explored.bench.graph.model.SerializeToString(deterministic=True)
            write_atomically(self._output / ".edgewise" / "model" / "equalised.onnx", model)
        if chosen is not None and chosen.recipe.regions:
            write_kept(self._output / KEPT, explored.bench.kept(chosen.recipe))
        shutil.rmtree(self._output / ".edgewise" / "shortlist", ignore_errors=True)
        return Run(
            model=self._project.model.path,
            model_digest=prepared.imported.digest,
            task=prepared.task.kind,
            metric=prepared.task.metric,
            target=prepared.target.name,
            effort=str(self._project.search.effort),
            seconds={},
            data=Data(
                calibrate=len(prepared.calibrate),
                select=len(reference.feeds),
                test=comparison.variant.samples if comparison else 0,
                digest=digest(prepared.calibrate.digest(), prepared.select.digest()),
                selection=prepared.selection if len(prepared.calibrate) <= self._plan.calibration_samples else SPREAD,
            ),
            reference=reference_figures,
            chosen=chosen if fits else None,
            closest={} if fits else closest(measured, fp32, budget),
            advice=() if fits else advice(measured, fp32, budget),
            candidates=(*measured, *screened),
            budget=BudgetEvidence(limits=budget, verdicts=verdicts, fits=fits),
            regions=region_evidence(prepared.graph, explored, winner.recipe if winner else fp32.recipe, profile),
            histograms=histogram_evidence(explored, winner.recipe) if best is not None and winner else (),
            flips=flip_evidence(prepared.task, comparison, prepared.test) if comparison and prepared.test else (),
            agreement=agreement,
            notes=prepared.notes,
            warnings=prepared.warnings,
            environment=environment(threads=prepared.threads, seed=self._project.search.seed),
        )

    def _most(self, prepared: Prepared) -> float:
        """Return the divergence up to which a variant counts as close to fp32."""
        return tolerance(prepared.task.kind, self._project.budget) * self._plan.tolerance

    def _test(self, prepared: Prepared, file: Path, winner: Candidate | None) -> Comparison | None:
        if prepared.test is None or winner is None:
            return None
        self._progress.start("final evidence on the test split", len(prepared.test))
        variant = prepared.executing(winner).load(file, threads=prepared.threads)
        return compare(prepared.task, prepared.fp32, variant, prepared.test, report=self._progress.advance)

    def _reference(self, prepared: Prepared, comparison: Comparison | None, fp32: Candidate) -> Figures:
        """Return fp32's figures, those of accuracy on the test split where there is one."""
        figures = msgspec.structs.asdict(fp32) | {"path": str(prepared.imported.original)}
        if comparison is not None:
            figures |= accuracy_of(comparison.reference)
        return Figures(**{key: figures[key] for key in Figures.__struct_fields__})

    def _chosen(self, comparison: Comparison | None, winner: Candidate, file: Path) -> Chosen:
        """Return the winner's figures, those of accuracy on the test split where there is one."""
        figures = msgspec.structs.asdict(winner) | {"path": str(file)}
        if comparison is not None:
            figures |= accuracy_of(comparison.variant)
        return Chosen(**{key: figures[key] for key in Chosen.__struct_fields__})

    def _path(self, name: str) -> Path:
        return self._output / "variants" / f"{name.replace(' ', '-').replace('/', '-')}.onnx"

    def _ship(self, files: dict[str, Path]) -> None:
        """Put files, by their variant's name, under `variants/`, each whole or not at all; take older ones away."""
        paths = {self._path(name): file for name, file in files.items()}
        for path, file in paths.items():
            write_atomically(path, file.read_bytes())
        for old in (self._output / "variants").glob("*.onnx"):
            if old not in paths:
                old.unlink()

    def _profile_of(
        self, prepared: Prepared, explored: Explored, reference: Reference, file: Path, execute: Runtime
    ) -> Profile | None:
        try:
            return profiled(
                execute,
                file.read_bytes(),
                explored.bench.graph,
                explored.bench.regions,
                reference.feeds[:8],
                threads=prepared.threads,
                rounds=self._plan.profile_rounds,
            )
        except EdgewiseError as error:
            self._progress.note(f"the chosen variant could not be profiled: {error.found}")
            return None

    def _lap(self, name: str, since: float) -> None:
        self._seconds[name] = round(time.monotonic() - since, 3)
