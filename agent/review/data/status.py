"""One session at a glance.

``status_json`` is schema ``overnight.status/1``. One object with the keys of ``overnight list --json``, and:

- branch; branch_waits: why the branch does not follow the kept edits, or empty
- baseline_runs, best_runs, runs, lost_runs, resumed (how often), reverted, repaired (trials whose edit ran
  after a repair), failures (number of trials by status)
- test_baseline, test_best, test_gain; test_problem: why the test split has no value, or empty
- noise_sd, noise_dof: standard deviation between runs of one commit, and its degrees of freedom
- stopped: runs that were stopped, the seconds that they trained, saved_seconds of training; checked: runs that were
  predicted to lose and were finished as a check; wrong: how many of these edits were kept
- seconds (by phase, over all runs), gpu_hours (of all runs on GPUs, summed over workers), wall_seconds (without the
  time in which no session ran), split (wall_seconds by purpose), seconds_left (null if unknown)
- ideas: tried, kept and open ideas of the bank; null where no proposer knows it
- loops: trials in which the answers of the model were a loop
- server_problems: time, problem and action (restarted, split, waiting or noted) of each problem of a sleeping server
- now: trial, role and since of the run under way (null); heartbeat: seconds since the session last wrote (null)
"""

from __future__ import annotations

from typing import Any

from agent import text
from agent.review.data.night import Night
from agent.review.data.runs import run_json

STATUS_SCHEMA = "overnight.status/1"
FIGURES = ("test_baseline", "test_best", "test_gain", "noise_sd", "noise_dof", "reverted", "repaired", "runs")


def status_json(night: Night) -> dict[str, Any]:
    summary, state, run = night.summary, night.state, night.under_way
    return {
        **run_json(night.tag, state, night.running),
        "schema": STATUS_SCHEMA,
        "branch": night.branch,
        "branch_waits": text.line(night.branch_waits, 400),
        "baseline_runs": summary.baseline.n if summary.baseline else 0,
        "best_runs": summary.best.n if summary.best else 0,
        **{name: getattr(summary, name) for name in FIGURES},
        "test_problem": text.line(summary.test_problem),
        "stopped": {name: round(value, 1) for name, value in vars(summary.stopped).items()},
        "failures": dict(summary.failures),
        "lost_runs": state.lost,
        "resumed": state.resumed,
        "server_problems": [
            {"time": found.time, "problem": text.line(found.problem, 400), "action": found.action}
            for found in state.server_problems
        ],
        "seconds": {phase: round(seconds, 1) for phase, seconds in summary.seconds.items()},
        "gpu_hours": round(summary.gpu_seconds / 3600, 3),
        "wall_seconds": round(summary.wall_seconds, 1),
        "split": {part: round(seconds, 1) for part, seconds in summary.split.items()},
        "ideas": vars(night.ideas) if night.ideas else None,
        "loops": list(night.loops),
        "seconds_left": night.seconds_left,
        "now": {"trial": run.trial, "role": run.role, "since": run.time} if run else None,
        "heartbeat": None if night.heartbeat is None else round(night.heartbeat, 1),
    }
