"""A session: the loop over trials, and its parts.

loop       start here: one night
baseline   the runs of the unchanged target, before the first trial
evidence   the next step of a trial, by ``agent.judge``; watching: when its first run is stopped
in_flight  runs of the workers, and the idea that the proposer is asked for
commits    candidates, accepted edits and the branch
stopping   when the night ends
repair     an edit that failed early goes back to the model
stacked    the loop under policy stacked; stacked_planner plans its runs, stacked_edits merges their edits
setup      builds all of this from the settings (parts, context, memory, preview), and starts or resumes it
recorder   the ledger and the observers; restore: everything else follows the ledger after a kill
"""
