"""Policy ``confirm``: whole trials against runs whose true gain is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import level_of

from agent.judge.belief import Belief
from agent.judge.noise import Noise
from agent.judge.paired import MAX_RUNS
from agent.judge.paired_runs import PairedRuns
from agent.judge.policy import History, MeasureNext, Policy, judge
from agent.judge.sharing import InitialWeights
from agent.ledger.events import Candidate, Event, Judged, Measured, Moved, SessionStarted
from agent.types import Goal, Measurement, Role, Verdict

CONFIRM = Policy("confirm")
BASE = (3.0, 3.02, 2.98, 3.01, 2.99)  # values of the baseline under the seeds 0 to 4
ValueOf = Callable[[str, int], float]  # commit, seed


def run(commit: str, seed: int, value: float | None, role: Role = "confirm", **fields: object) -> Measurement:
    status = "ok" if value is not None else "crash"
    return Measurement(commit, role, seed, "cpu", status, value, trace=f"trials/0001/{commit}-{seed}", **fields)  # type: ignore[arg-type]


@dataclass
class Trial:
    """Plays one trial of ``confirm`` on a session whose baseline is calibrated."""

    value_of: ValueOf
    goal: Goal = "minimize"
    sign: float = 1.0
    policy: Policy = CONFIRM
    memory: float = 1.0  # GB of the candidate; the incumbent needs 1 GB
    simpler_by: int = 0
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.before = [run("old", k, self.sign * v, "calibrate", peak_memory_gb=1.0) for k, v in enumerate(BASE)]
        self.after: list[Measurement] = []
        self.events += [SessionStarted(baseline="old", goal=self.goal)]
        self.events += [Measured(trial=0, measurement=found) for found in self.before]
        self.events += [Candidate(trial=1, commit="new", parent="old")]
        self.beliefs = PairedRuns(lambda k: k)

    def history(self) -> History:
        belief = self.beliefs.catch_up(self.events).of("", 1) if self.after else None
        used = len(self.after) + len(self.before) - len(BASE)
        return History(
            self.goal, "old", "new", tuple(self.before), tuple(self.after), Noise(0.016, 4), self.simpler_by,
            self.sign * 3.0, 1, used, belief, self.beliefs.window(0),
        )  # fmt: skip

    def play(self) -> Verdict:
        for _ in range(MAX_RUNS + 2):
            step = judge(self.history(), self.policy)
            if isinstance(step, Verdict):
                return step
            assert step.seed is not None
            found = run(step.commit, step.seed, self.value_of(step.commit, step.seed), step.role)
            found = replace(found, peak_memory_gb=self.memory if step.commit == "new" else 1.0)
            (self.after if step.commit == "new" else self.before).append(found)
            self.events.append(Measured(trial=1, measurement=found))
        raise AssertionError("the trial does not end")


def gaining(gain: float, scatter: float = 0.001) -> ValueOf:
    """Values of an edit that gains ``gain`` under every seed, up to a small scatter."""

    def value(commit: str, seed: int) -> float:
        level = BASE[seed] if seed < len(BASE) else 3.0
        return level - (gain + scatter * (-1) ** seed if commit == "new" else 0.0)

    return value


def test_clear_loss_reverts_after_one_run() -> None:
    verdict = Trial(gaining(-0.2)).play()
    assert (verdict.decision, verdict.n) == ("revert", 1)


def test_clear_gain_is_kept_with_its_pairs() -> None:
    verdict = Trial(gaining(0.1)).play()
    assert verdict.decision == "keep"
    assert verdict.probability is not None
    assert verdict.probability > CONFIRM.alpha
    assert verdict.pairs == verdict.n
    assert verdict.gain == pytest.approx(0.1, abs=0.02)


def test_value_is_incumbents_value_less_gain() -> None:
    verdict = Trial(gaining(0.1)).play()
    assert verdict.best_before == 3.0
    assert verdict.gain is not None
    assert verdict.value == pytest.approx(3.0 - verdict.gain)


def test_edit_without_effect_reverts() -> None:
    assert Trial(gaining(0.0)).play().decision == "revert"


def test_first_run_uses_a_seed_of_the_incumbent() -> None:
    step = judge(Trial(gaining(0.0)).history(), CONFIRM)
    assert isinstance(step, MeasureNext)
    assert (step.commit, step.role, step.seed) == ("new", "screen", 0)


def test_maximise_mirrors_minimise() -> None:
    def mirrored(commit: str, seed: int) -> float:
        return -gaining(0.05)(commit, seed)

    lower, higher = Trial(gaining(0.05)).play(), Trial(mirrored, "maximize", -1.0).play()
    assert (lower.decision, lower.gain, lower.n) == (higher.decision, higher.gain, higher.n)


def test_much_more_memory_needs_more_certainty() -> None:
    cheap, costly = (Trial(gaining(0.03, 0.012), memory=gb).play() for gb in (1.0, 2.0))
    assert cheap.decision == "keep"
    assert costly.decision == "revert" or costly.n > cheap.n


def test_simpler_tie_is_kept_only_if_asked() -> None:
    decisions = [
        Trial(gaining(0.0), policy=replace(CONFIRM, keep_simpler=asked), simpler_by=5).play().decision
        for asked in (False, True)
    ]
    assert decisions == ["revert", "keep"]


@pytest.mark.parametrize(("value", "decision"), [(4.999, "keep"), (5.0, "revert"), (5.1, "revert")])
def test_target_without_noise_keeps_any_gain(value: float, decision: str) -> None:
    before, after = (run("old", 0, 5.0), run("old", 1, 5.0)), (run("new", 0, value),)
    found = judge(History("minimize", "old", "new", before, after, Noise(0.0, 1)), CONFIRM)
    assert isinstance(found, Verdict)
    assert found.decision == decision


@pytest.mark.parametrize(("value", "decision"), [(4.0, "keep"), (4.9, None), (5.2, "revert")])
def test_published_run_decides_only_if_clear(value: float, decision: str | None) -> None:
    history = History("minimize", "old", "new", (run("old", 0, 5.0),), (run("new", 0, value),), Noise(0.1, 1000))
    found = judge(history, CONFIRM)
    assert (found.decision if isinstance(found, Verdict) else None) == decision


@settings(max_examples=60)
@given(values=st.dictionaries(st.tuples(st.booleans(), st.integers(0, 20)), st.floats(-1e29, 1e29), max_size=30))
def test_every_trial_ends_with_finite_figures(values: dict[tuple[bool, int], float]) -> None:
    verdict = Trial(lambda commit, seed: values.get((commit == "new", seed), 3.0)).play()
    assert verdict.gain is not None
    assert verdict.gain_se is not None
    assert math.isfinite(verdict.gain + verdict.gain_se)


def judged(trial: Trial) -> Judged:
    return Judged(trial=1, verdict=trial.play())


def test_run_of_dropped_edit_is_ignored() -> None:
    trial = Trial(gaining(-0.2))
    trial.events.append(judged(trial))
    before = trial.beliefs.catch_up(trial.events).of("", 2)
    assert before is not None
    level = level_of(before)
    trial.events.append(Measured(trial=1, measurement=run("new", 3, 3.2)))
    after = trial.beliefs.catch_up(trial.events).of("", 2)
    assert after is not None
    assert level_of(after) == level


def test_run_on_older_base_counts_with_gains_kept_since() -> None:
    trial = Trial(gaining(0.1))
    trial.events += [judged(trial), Candidate(trial=2, commit="late", parent="old")]
    trial.events += [Measured(trial=2, measurement=run("late", k, BASE[k] - 0.1)) for k in (0, 1, 2)]
    belief = trial.beliefs.catch_up(trial.events).of("", 2)
    assert belief is not None
    assert belief.estimate(2).gain == pytest.approx(0.1, abs=0.02), "measured against the base it was built on"


def test_same_events_give_same_belief() -> None:
    trial = Trial(gaining(0.05))
    trial.play()
    again = PairedRuns(lambda k: k).catch_up(trial.events).of("", 1)
    belief = trial.beliefs.of("", 1)
    assert again is not None
    assert belief is not None
    assert again.estimate(1) == belief.estimate(1)


def test_other_device_type_learns_of_a_keep() -> None:
    trial = Trial(gaining(0.1))
    other = [replace(found, device_type="b") for found in trial.before]
    trial.events[1:1] = [Measured(trial=0, measurement=found) for found in other]
    trial.beliefs.catch_up(trial.events).of("b", 9)
    trial.events.append(judged(trial))
    belief = trial.beliefs.catch_up(trial.events).of("b", 9)
    assert belief is not None
    assert level_of(belief)[0] == pytest.approx(-2.9, abs=0.03)


@pytest.mark.parametrize("gain", [0.2, -0.2])
def test_two_calibration_runs_are_enough_for_a_clear_edit(gain: float) -> None:
    trial = Trial(gaining(gain))
    trial.before, trial.events = trial.before[:2], [event for k, event in enumerate(trial.events) if k not in (3, 4, 5)]
    assert trial.play().decision == ("keep" if gain > 0 else "revert")


def test_belief_waits_for_a_second_calibration_run() -> None:
    beliefs = PairedRuns(lambda k: k)
    started: list[Event] = [SessionStarted(baseline="old"), Measured(trial=0, measurement=run("old", 0, 3.0))]
    assert beliefs.catch_up(started).of("", 1) is None
    started.append(Measured(trial=0, measurement=run("old", 1, 3.02)))
    assert beliefs.catch_up(started).of("", 1) is not None


@pytest.mark.parametrize(
    ("before", "after", "weights"), [("a", "a", "equal"), ("a", "b", "different"), ("", "b", "unknown")]
)
def test_initial_weights_say_which_prior_holds(before: str, after: str, weights: InitialWeights) -> None:
    beliefs, direct = PairedRuns(lambda k: k), Belief([(k, -value) for k, value in enumerate(BASE)])
    events: list[Event] = [SessionStarted(baseline="old")]
    events += [
        Measured(trial=0, measurement=run("old", k, value, "calibrate", initial_hash=before and f"{before}{k}"))
        for k, value in enumerate(BASE)
    ]
    events += [Candidate(trial=1, commit="new", parent="old")]
    events += [Measured(trial=1, measurement=run("new", 0, 2.97, initial_hash=f"{after}0"))]
    direct.open(1, weights)
    direct.observe(0, -2.97, 1)
    belief = beliefs.catch_up(events).of("", 1)
    assert belief is not None
    assert belief.estimate(1) == direct.estimate(1)


def test_night_with_kept_edit_that_does_not_share_goes_on() -> None:
    """Runs of an older line of commits, in flight when such an edit is kept, leave finite figures."""
    beliefs, events = PairedRuns(lambda k: k), list(Trial(gaining(0.0)).events)
    scattered = (-0.3, -0.36, -0.3)
    events += [Measured(trial=1, measurement=run("new", k, BASE[k] + by)) for k, by in enumerate(scattered)]
    events += [Candidate(trial=2, commit="late", parent="old")]
    verdict = Verdict("keep", 2.7, 3.0, 0.3, 0.02, 3, 5, 4, "a gain")
    events += [Judged(trial=1, verdict=verdict), Moved(trial=1, commit="head")]
    events += [Measured(trial=2, measurement=run("late", 1, 2.9)), Candidate(trial=3, commit="next", parent="head")]
    events += [Measured(trial=3, measurement=run("next", 0, 2.7))]
    belief = beliefs.catch_up(events).of("", 3)
    assert belief is not None
    late, then = belief.estimate(2), belief.estimate(3)
    assert late.gain == pytest.approx(0.1, abs=0.05)
    assert abs(then.gain) < 0.05
