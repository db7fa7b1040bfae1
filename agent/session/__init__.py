"""A session: the loop over trials, and its parts. Start with ``loop``, which is one night.

- ``baseline``: the runs of the unchanged target, before the first trial
- ``trial_judge``: the next step of a trial, by ``agent.judge``; ``watching``: when its first run is stopped
- ``in_flight``: the runs of the workers, and the idea that the proposer is asked for
- ``commits``: candidates, accepted edits and the branch
- ``stopping``: when the night ends; ``repair``: an edit that failed early goes back to the model
- ``stacked``: the loop of policy stacked; ``stacked_planner`` plans its runs, ``stacked_edits`` merges their edits
- ``recorder``: the ledger and the observers; ``restore``: everything else follows the ledger after a kill
- ``setup``: builds all of this from the settings (``parts``, ``context``, ``memory``, ``preview``), starts and resumes
"""
