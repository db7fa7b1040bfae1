"""Run the commits of a branch again, in order, and hold what comes out against what is recorded.

A replay has a directory and a ledger of its own, so that it goes on where it was killed. Its rounds go through all
steps one after the other: a machine that drifts drifts for all of them alike.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from statistics import fmean
from threading import Lock
from typing import Any, Protocol

from agent.errors import EnvironmentProblem, Interrupted, UsageError
from agent.judge.noise import Noise, pooled_noise
from agent.ledger.events import Ended, Lost, Measured, RunStarted
from agent.ledger.journal import Ledger
from agent.ledger.state import RETRIES, State, lost_in_a_row
from agent.llm.prompts import one_line
from agent.replay import ablation
from agent.replay import outcomes as reproduce
from agent.replay.outcomes import Finding
from agent.replay.steps import Step
from agent.repo.repo import Repo
from agent.rundir.directory import RunDirectory
from agent.target import Budget
from agent.trial.experiment import Experiment
from agent.trial.seeds import run_seed
from agent.types import Goal, Measurement
from sandbox.types import SandboxBroken

TRACE = "trace.jsonl"
LONGEST_HEADER = 1 << 16  # characters
FIRST = 1_000_000  # number of the first replayed run of a commit among its seeds: none that was recorded comes again


class View(Protocol):
    def begins(self, step: Step, run: int, runs: int) -> None: ...
    def progress(self, phase: str, info: Any) -> None: ...
    def measured(self, step: Step, run: int, runs: int, found: Measurement) -> None: ...


@dataclass(frozen=True)
class Plan:
    """Everything that a replay was asked for."""

    what: str  # the run, branch or range
    steps: tuple[Step, ...]
    rounds: int  # runs of each step
    goal: Goal
    metric: str
    path: str  # of the edited file
    budget: str
    exact: bool = False
    ablate: bool = False
    recorded_noise: bool = True  # whether the recorded runs were made under this budget, so that their scatter counts
    source: Path | None = None  # directory of the recorded run, for its schedule traces
    seed: int = 0
    self_reported: bool = False


@dataclass(frozen=True)
class Result:
    """What a replay has found so far; ``total`` is the last step against the baseline."""

    plan: Plan
    findings: tuple[Finding, ...]
    noise: Noise
    total: Finding | None
    ablations: tuple[ablation.Ablation, ...] = ()
    minimal: ablation.Minimal | None = None
    complete: bool = False

    @property
    def reproduced(self) -> bool:
        """No step is known not to reproduce, and the branch as a whole is better than its baseline again."""
        edits = [finding for finding in self.findings if finding.step.number]
        if self.plan.exact:
            return all(finding.outcome == "reproduced" for finding in self.findings)
        return all(f.outcome != "not reproduced" for f in edits) and bool(
            self.total and self.total.outcome == "reproduced"
        )


class Replay:
    """One replay. What it knows is in its ledger.

    Steps are measured beside each other, one by each of ``experiments``; the runs of one step follow one another.
    """

    def __init__(
        self,
        plan: Plan,
        directory: RunDirectory,
        ledger: Ledger,
        repo: Repo,
        experiments: Sequence[Experiment],
        view: View,
    ):
        self.plan, self.directory, self.ledger, self.view = plan, directory, ledger, view
        self.repo, self._workers = repo, len(experiments)
        self._free: SimpleQueue[Experiment] = SimpleQueue()
        for experiment in experiments:
            self._free.put(experiment)
        self._lock = Lock()  # of the ledger and the view

    def run(self) -> bool:
        """Measure what is missing; False when it was interrupted."""
        for started in self.ledger.state.started:
            self.ledger.append(Lost(trial=0, trace=started.trace, reason="the replay died"))
        try:
            self.bring_all(self.plan.steps)
            if self.plan.ablate:
                self.ablate()
        except Interrupted:
            return False
        self.ledger.append(Ended(reason="all steps done"))
        return True

    def bring_all(self, steps: Sequence[Step]) -> None:
        """Have the planned number of runs of each step, round by round."""
        for number in range(1, self.plan.rounds + 1):
            with ThreadPoolExecutor(self._workers) as pool:
                started = [pool.submit(self.bring, step, number) for step in steps]
                try:
                    for future in started:
                        future.result()
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise

    def bring(self, step: Step, wanted: int) -> None:
        """Have ``wanted`` runs of a step. One failure of a step is enough: it would only fail again."""
        while True:
            with self._lock:
                done = self.ledger.state.runs.get(step.commit, ())
            if len(done) >= wanted or any(run.value is None for run in done):
                return
            schedule = None
            if self.plan.exact:
                recorded = traced(step, self.plan.source)
                if len(done) >= len(recorded):
                    return
                original = recorded[len(done)]
                seed, schedule = original.seed, trace_of(self.plan.source, original)
            else:
                seed = run_seed(self.plan.seed, step.commit, FIRST + len(done))
            self.measure(step, len(done) + 1, seed, schedule)

    def measure(self, step: Step, number: int, seed: int, schedule: Path | None) -> None:
        """One run. A broken machine costs a retry."""
        with self._lock:
            tries = sum(isinstance(e, RunStarted) and e.commit == step.commit for e in self.ledger.events) + 1
            trace = f"trials/{step.number:04d}/run-{tries}"
            self.view.begins(step, number, self.plan.rounds)
            self.ledger.append(RunStarted(trial=0, commit=step.commit, role="replay", seed=seed, trace=trace))
        experiment = self._free.get()
        try:
            run = experiment.measure(
                step.commit, "replay", seed, self.directory.path / trace, trace, 0, self._progress, schedule
            )
        except Interrupted:
            with self._lock:
                self.ledger.append(Lost(trial=0, trace=trace, reason="interrupted"))
            raise
        except (SandboxBroken, EnvironmentProblem) as error:
            with self._lock:
                self.ledger.append(Lost(trial=0, trace=trace, reason=str(error)))
                if lost_in_a_row(self.ledger.events) >= RETRIES:
                    raise EnvironmentProblem(
                        f"{RETRIES} runs in a row were lost to the machine, the last: {error}"
                    ) from error
            return
        finally:
            self._free.put(experiment)
        with self._lock:
            self.ledger.append(Measured(trial=0, measurement=run))
            self.view.measured(step, number, self.plan.rounds, run)
        (self.directory.path / trace / "model.safetensors").unlink(missing_ok=True)

    def _progress(self, phase: str, info: Any) -> None:
        with self._lock:
            self.view.progress(phase, info)

    def ablate(self) -> None:
        """Each kept edit left out in turn, then the branch without those that do not hold."""
        repo, plan = self.repo, self.plan
        without = list(ablation.steps(repo, plan.steps, plan.path))
        for step in without:
            repo.move(self._ref(step), step.commit, repo.ref(self._ref(step)))
        self.bring_all(without)
        found = result_of(plan, self.ledger.state, repo)
        rest = ablation.minimal_step(repo, plan.steps, found.ablations, plan.path)
        if rest is None:
            return
        repo.move(self._ref(rest), rest.commit, repo.ref(self._ref(rest)))
        self.bring_all([rest])
        final = result_of(plan, self.ledger.state, repo).minimal
        if final is not None and not final.worse:
            name = f"refs/heads/{final.branch}"
            repo.move(name, rest.commit, repo.ref(name))

    def _ref(self, step: Step) -> str:
        return f"refs/autoresearch/{self.directory.tag}/{step.number:04d}"


def result_of(plan: Plan, state: State, repo: Repo) -> Result:
    """What the replay's ledger says of the plan."""
    runs = state.runs
    noise = known_noise(plan, runs.values())
    if plan.exact:
        found: list[Finding] = []
        for step in plan.steps:
            found.append(reproduce.exactly(step, runs.get(step.commit, ()), found[-1] if found else None, plan.goal))
        return Result(plan, tuple(found), noise, None, complete=bool(state.ended))
    findings = reproduce.findings(plan.steps, runs, plan.goal, noise)
    result = Result(plan, findings, noise, total_of(plan, runs, noise), complete=bool(state.ended))
    if not plan.ablate:
        return result
    ablations = ablation.judge(repo, plan.steps, plan.path, runs, plan.goal, noise)
    rest = ablation.minimal_step(repo, plan.steps, ablations, plan.path)
    minimal = None
    if rest is not None and rest.commit in runs:
        name = minimal_branch(plan.what)
        minimal = ablation.judge_minimal(rest, name, plan.steps[-1], ablations, runs, plan.goal, noise)
    return dataclasses.replace(result, ablations=ablations, minimal=minimal)


def known_noise(plan: Plan, replayed: Any) -> Noise:
    """Scatter pooled over every commit that was run more than once, in the replay and, if comparable, in the record."""
    groups = [[run.value for run in runs if run.value is not None] for runs in replayed]
    if plan.recorded_noise:
        groups += [[run.value for run in step.runs if run.value is not None] for step in plan.steps]
    return pooled_noise(groups)


def total_of(plan: Plan, runs: Any, noise: Noise) -> Finding | None:
    """The last step that has a value against the baseline."""
    first = plan.steps[0]
    last = next((s for s in reversed(plan.steps) if s.number and _values(runs.get(s.commit, ()))), None)
    before = _values(runs.get(first.commit, ()))
    if last is None or not before:
        return None
    after = _values(runs[last.commit])
    gain = reproduce.gain_between(before, after, plan.goal)
    se = reproduce.gain_se(noise, len(after), len(before))
    recorded = None
    if first.recorded is not None and last.recorded is not None:
        recorded = (first.recorded - last.recorded) * (1.0 if plan.goal == "minimize" else -1.0)
    whole = dataclasses.replace(last, gain=recorded, gain_se=None, subject="the whole branch")
    outcome, reason = reproduce.compare(whole, gain, se, noise.dof)
    return Finding(whole, outcome, reason, fmean(after), len(after), gain, se)


def _values(runs: Sequence[Measurement]) -> list[float]:
    return [run.value for run in runs if run.value is not None]


def minimal_branch(what: str) -> str:
    """``autoresearch/<tag>-minimal``, by the last part of what was replayed."""
    return f"autoresearch/{what.rpartition('..')[2].rpartition('/')[2] or 'branch'}-minimal"


# exactly as before


def trace_of(source: Path | None, run: Measurement) -> Path | None:
    """The recorded schedule of a run, if its directory still has it."""
    place = source / run.trace / TRACE if source and run.trace else None
    return place if place and place.is_file() else None


def traced(step: Step, source: Path | None) -> list[Measurement]:
    """The recorded runs of a step that can be followed exactly."""
    return [run for run in step.runs if run.value is not None and trace_of(source, run)]


def header_of(trace: Path) -> dict[str, Any]:
    """The first line of a schedule trace: seed, budget, device, threads, versions."""
    with trace.open(encoding="utf-8", errors="replace") as file:
        line = file.readline(LONGEST_HEADER)
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):  # the trial wrote it
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"{trace} does not begin with the header of a schedule trace.")
    return found


def length_of(trace: Path) -> int:
    return sum(1 for line in trace.read_text(encoding="utf-8", errors="replace").splitlines() if '"progress"' in line)


def exact_budget(budget: Budget, steps: int) -> Budget:
    """A budget that ends with the trace: its steps, with ten times the time, since this machine may be a slower one."""
    return dataclasses.replace(budget, kind="steps", amount=float(steps), wall_seconds=10 * budget.wall_seconds)


def differences(plan: Plan, directory: Path, state: State) -> Iterator[str]:
    """What differs between the recorded and the replayed run of the first step whose bits differ."""
    for step in plan.steps:
        recorded = {run.seed: run for run in traced(step, plan.source)}
        for run in state.runs.get(step.commit, ()):
            before = recorded.get(run.seed)
            if before is None or run.value is None or run.value == before.value:
                continue
            old, new = trace_of(plan.source, before), directory / run.trace / TRACE
            yield f"step {step.number}, seed {run.seed}: {before.value!r} recorded, {run.value!r} replayed"
            if old and new.is_file():
                yield from _headers_differ(header_of(old), header_of(new))
            if before.initial_hash and before.initial_hash != run.initial_hash:
                yield "the weights differ before the first step already"
            elif (first := _first_loss(plan.source, before, directory, run)) is not None:
                yield f"the losses differ from step {first} on"
            return


def _headers_differ(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    flat = []
    for header in (old, new):
        versions = header.get("versions")
        known = versions.items() if isinstance(versions, dict) else ()
        flat.append({**header, **{f"version of {k}": v for k, v in known}})
    names = sorted((set(flat[0]) | set(flat[1])) - {"versions", "budget"})
    different = [one_line(f"{name}: {flat[0].get(name)} → {flat[1].get(name)}", 200) for name in names
                 if flat[0].get(name) != flat[1].get(name)]  # fmt: skip
    same = "threads, versions and device are the same: look at the processor, or at the code"
    yield "; ".join(different[:20]) or same


def _first_loss(source: Path | None, old: Measurement, directory: Path, new: Measurement) -> int | None:
    from agent.curves import read_curve

    if source is None:
        return None
    pairs = zip(read_curve(source / old.trace / "curve.jsonl"), read_curve(directory / new.trace / "curve.jsonl"),
                strict=False)  # fmt: skip
    return next((a.step for a, b in pairs if (a.step, a.loss) != (b.step, b.loss)), None)
