"""The acceptance rule: whether an edit is kept, reverted or measured again. Pure functions of the measurements.

    policy       start here: ``judge(history, policy)``; the policies greedy, margin and confirm
    gain, noise  differences between the means of two commits, and their standard errors
    hopeless     a run is cut short once its loss curve says that its edit will be dropped

A policy that reads all runs of a session has three parts: a fold of the events, a model and a sequential test.

    policy    fold          model     test
    confirm   paired_runs   belief    paired    each run carries one edit; runs under one seed are paired
    stacked   stacked_runs  weighing  stacked   each run carries several edits; a linear model separates them

    filters   the Kalman filters of both models
    effects   the prior of an edit's effect, a mixture, and its posterior
    sharing   confirm: whether an edit draws the same random numbers as its parent

Words: ``z`` is minus the value where lower values are better, so that gains are positive. A *seed effect* is what all
runs under one seed have in common. An edit is *open* (*undecided*) while it has no verdict. A run is *wild* if no
effect of the prior explains it. A *stand-in* is the Gaussian in the place of the mixture while the filters run.
"""

from agent.judge.policy import judge

__all__ = ["judge"]
