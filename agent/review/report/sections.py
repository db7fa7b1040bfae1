"""The sentences of the report."""

from __future__ import annotations

import math

from agent import text
from agent.judge.noise import t_quantile
from agent.review.data.summary import Summary

KINDS = {
    "crash": "ended with an error",
    "oom": "used more memory than allowed",
    "diverged": "the loss was not finite",
    "timeout": "passed its time limit and was killed",
    "over_budget": "trained longer than allowed",
    "invalid": "broke the rules of scoring",
    "patch_rejected": "the edit could not be applied",
    "duplicate": "the edit had been tried before",
    "no_effect": "the edit changes nothing",
    "model_failed": "the model gave no usable answer",
    "lost": "was never run",
}
POSTERIOR = 1_000_000  # degrees of freedom


def headline(summary: Summary) -> str:
    """The result of the session in one or two sentences."""
    tried = text.count(summary.trials, "trial")
    if summary.baseline is None:
        return "The baseline has not been measured yet."
    metric, star = text.line(summary.metric), summary.self_reported
    start = text.number(summary.baseline.value, star)
    if not summary.trials:
        return f"No trial has been judged yet. The baseline reaches {metric} {start}."
    if summary.failed == summary.trials:
        return f"Nothing was kept: {'the only trial' if summary.trials == 1 else f'all {tried}'} failed."
    if summary.best is None or not summary.kept:
        return f"Nothing was kept: none of {tried} beat the baseline ({metric} {start}) by more than the noise."
    verb = "was" if summary.kept == 1 else "were"
    reached = text.number(summary.best.value, star)
    edits = text.count(summary.trials, "edit")
    return f"{summary.kept} of {edits} {verb} kept. {metric} went from {start} to {reached}."


def how_sure(summary: Summary) -> str:
    """The confidence interval of the gain and the runs behind it."""
    if summary.gain is None or summary.baseline is None or summary.best is None:
        if summary.noise_sd is None:
            return "The noise is unknown: no commit has two values."
        return (
            f"The noise was {text.FIXED_SEED}."
            if not summary.noise_sd
            else f"Standard deviation between runs: {summary.noise_sd:.2g}."
        )
    runs = f"{text.count(summary.baseline.n, 'run')} of the baseline, {summary.best.n} of the result"
    if summary.gain_se is None:
        if summary.noise_sd == 0:
            return f"{runs}. No interval: the noise was {text.FIXED_SEED}."
        return f"{runs}. No confidence interval: no commit has two values."
    reach = t_quantile(0.975, POSTERIOR if summary.estimated else summary.noise_dof) * summary.gain_se
    low, high = text.gain(summary.gain - reach), text.gain(summary.gain + reach)
    if summary.estimated:
        return f"95 % credible interval {low} to {high}: the sum of the gains reported for the kept edits."
    return (
        f"95 % confidence interval {low} to {high}, from {runs}; standard deviation between runs "
        f"{summary.noise_sd or 0.0:.2g}."
    )


def carries_over(summary: Summary) -> str:
    """Whether the gain holds on the test split: it differs by over two standard errors and by over a tenth if not."""
    gain, test, se = summary.gain, summary.test_gain, summary.test_gain_se
    if gain is None or test is None:
        if summary.self_reported:
            return "The target reports its own value, so there is no test split."
        return "The test split is scored for the baseline and for kept edits."
    if se is None:
        return "One checkpoint of each was scored."
    if test <= 0:
        return "The gain does not hold: the search overfitted the validation split."
    if gain - test > max(2 * math.hypot(summary.gain_se or 0.0, se), 0.1 * gain):
        return "Smaller than on validation: part of the gain overfits the validation split."
    return "The gain holds on data that played no part in the search."
