"""The acceptance rule: whether an edit is kept, reverted or measured again. Pure functions of the measurements.

Start with ``policy``: ``judge(history, policy)``, and the policies greedy, margin and confirm. Two policies read all
runs of a session. Each has a fold of the events, a model and a sequential test:

- confirm, where each run carries one edit, and runs under one seed are paired: ``paired_runs``, ``belief``, ``paired``;
- stacked, where each run carries several edits: ``stacked_runs``, ``weighing``, ``stacked``.

Both models are built on ``filters`` (Kalman filters) and ``effects`` (the prior of an edit's effect, and Bayes' rule);
``sharing`` says whether an edit draws the same random numbers as its parent. ``gain`` and ``noise`` compare the means
of two commits. ``hopeless`` stops a run once its loss curve says that its edit will be dropped.

Terms: ``z`` is minus the value where lower values are better, so that gains are positive. The effect of a seed is what
all runs under that seed have in common. An edit is open (undecided) until it has a verdict. A stand-in is the Gaussian
in the place of the prior while the filters run.
"""

from agent.judge.policy import judge

__all__ = ["judge"]
