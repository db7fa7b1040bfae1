"""Whole sessions with real git, real processes and a target that trains in a moment."""

from __future__ import annotations

import shutil
from pathlib import Path

import budgets
import pytest
from openai_server import Answer, OpenAIServer
from sessions import check_replay, check_whole, killed, refs_of, resume, start, state_of
from targets import TOML, TRAIN, git, make_bowl

from agent.cli.entry import main
from agent.cli.review import night_now
from agent.errors import EnvironmentProblem, OvernightError, UsageError
from agent.ledger.events import Lost, Resumed
from agent.ledger.journal import read
from agent.ledger.state import fold
from agent.patch.apply import unified_diff
from agent.review.data.night import night_of
from agent.review.data.status import status_json
from agent.review.data.tables import environment_tables
from agent.rundir.directory import RunDirectory
from agent.target import Budget


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return make_bowl(tmp_path / "target")


def answer(old: str, new: str, subject: str) -> str:
    """A model's reply that edits the bowl's train.py."""
    assert old in TRAIN
    diff = unified_diff(TRAIN, TRAIN.replace(old, new), "train.py")
    return f"Category: optimiser\nSubject: {subject}\nRationale: It may help.\n\n```diff\n{diff}```\n"


def checkout_of(target: Path) -> list[str]:
    """What a session must not change."""
    return [git(target, *words.split()) for words in ("status --porcelain", "rev-parse HEAD", "branch --show-current")]


def test_session_leaves_branch_refs_and_results(target: Path, tmp_path: Path) -> None:
    before = checkout_of(target)
    directory = start(target, tmp_path / "runs", trials=8, seed=3)
    check_whole(directory, target, 8)
    check_replay(directory, target, {"seed": 3})
    assert checkout_of(target) == before
    state = state_of(directory)
    assert state.ended == "all 8 trials done"
    assert {m.role for m in state.baseline_runs} >= {"calibrate"}
    assert all(m.self_reported for runs in state.runs.values() for m in runs)


def test_runs_inside_target_are_ignored_by_git(target: Path) -> None:
    start(target, target / "runs", trials=1)
    assert git(target, "status", "--porcelain") == ""


def test_kept_commit_has_results_as_trailers(target: Path, tmp_path: Path) -> None:
    directory = start(target, tmp_path / "runs", trials=1, seed=1, policy="greedy", calibrate=3)
    state = state_of(directory)
    assert state.kept
    record = state.kept[-1]
    message = git(target, "log", "-1", "--format=%B", str(record.accepted))
    trailers = git(target, "log", "-1", "--format=%(trailers:only,unfold)", str(record.accepted))
    found = dict(line.split(": ", 1) for line in trailers.splitlines())
    assert found["Trial"] == str(record.number)
    assert found["Val-Bpb"] == f"{record.verdict.value:.6f} (self-reported)"  # type: ignore[union-attr]
    assert found["Source"] == "cma"
    assert found["Session"] == "night"
    assert message.splitlines()[0] == record.proposal.subject
    attempt = git(target, "log", "-1", "--format=%(trailers:only,unfold)", str(record.candidate))
    assert "Val-Bpb" not in attempt, "an attempt has no results: its value is not known yet"


def test_model_edits_get_expected_status(target: Path, tmp_path: Path) -> None:
    good = answer("(RATE / 0.1) ** 2", "(RATE / 0.1) ** 2 / 2", "Halve the penalty")
    replies = [
        good,
        answer("() + noise", "() + noise + 0.5", "Make it worse"),
        "I think that we should use a larger model.",
        answer("import math", "import boom", "Crash"),
        Answer(text="", refusal="I must not"),
    ]
    comment = answer("best at 0.1", "best at 0.2", "Change a comment")
    with OpenAIServer(replies, at_end=Answer(text=comment)) as server:
        directory = start(
            target, tmp_path / "runs", proposer="code", sandbox="process", trials=6, repairs=0,
            llm_base_url=server.base_url,
        )  # fmt: skip
    state = state_of(directory)
    assert [r.status for r in state.records] == ["ok", "ok", "patch_rejected", "crash", "model_failed", "no_effect"]
    assert [r.decision for r in state.records] == ["keep"] + ["revert"] * 5
    assert "No module named 'boom'" in state.records[3].runs[0].reason
    assert [r.candidate is not None for r in state.records] == [True, True, False, True, False, False]
    found = refs_of(target)
    assert sorted(found) == ["0001", "0002", "0004", "head", "refs/heads/autoresearch/night", "refs/heads/main"]
    kept = git(target, "show", f"{found['head']}:train.py")
    assert kept + "\n" == TRAIN.replace("(RATE / 0.1) ** 2", "(RATE / 0.1) ** 2 / 2")
    for record in state.records:
        assert (directory.path / record.proposal.transcript / "prompt.md").is_file()
        assert (directory.path / record.proposal.transcript / "reply.md").is_file()
    check_whole(directory, target, 6)


def test_cma_es_takes_over_on_plateau(target: Path, tmp_path: Path) -> None:
    bad = [answer("() + noise", f"() + noise + 0.{k}", f"Add {k}") for k in range(1, 9)]
    with OpenAIServer(bad, at_end=Answer(text="nothing more")) as server:
        directory = start(
            target, tmp_path / "runs", proposer="code", trials=10, repairs=0, on_plateau=3, calibrate=3, seed=4,
            llm_base_url=server.base_url,
        )  # fmt: skip
        resume(tmp_path / "runs", trials=12)
    records = state_of(directory).records
    assert [r.proposal.source for r in records[:9]] == ["llm"] * 8 + ["cma"]
    searched = [r for r in records if r.proposal.source == "cma"]
    assert len(searched) >= 1
    assert len({tuple(sorted((r.proposal.params or {}).items())) for r in searched}) == len(searched)
    check_whole(directory, target, 12)


def test_centaur_records_source_of_each_point(target: Path, tmp_path: Path) -> None:
    """Replies without a configuration end their trials; no other method fills in a point."""
    with OpenAIServer([], at_end=Answer(text="I would rather not.")) as server:
        directory = start(
            target, tmp_path / "runs", proposer="centaur", centaur_share="1.0", screen=False, trials=13, seed=2,
            policy="greedy", llm_base_url=server.base_url,
        )  # fmt: skip
        resume(tmp_path / "runs", trials=14)
    records = state_of(directory).records
    assert {r.proposal.source for r in records[:10]} == {"cma"}
    assert {(r.proposal.source, r.status) for r in records[10:]} == {("llm", "model_failed")}
    check_whole(directory, target, 14)


def test_invalid_centaur_share_is_usage_error(target: Path, tmp_path: Path) -> None:
    for share in ("much", "1.5"):
        with OpenAIServer([]) as server, pytest.raises(UsageError, match="share"):
            start(target, tmp_path / "runs", proposer="centaur", centaur_share=share, llm_base_url=server.base_url)
    assert not (tmp_path / "runs").exists()


def test_notes_reach_next_prompt(target: Path, tmp_path: Path) -> None:
    with OpenAIServer([], at_end=Answer(text="no diff today")) as server:
        directory = start(target, tmp_path / "runs", proposer="code", trials=1, repairs=0, llm_base_url=server.base_url)
        directory.notes.write_text("Leave DEPTH alone, it was tried by hand.")
        resume(tmp_path / "runs", trials=2)
    prompts = [(directory.trial(n) / "prompt.md").read_text() for n in (1, 2)]
    assert ["tried by hand" in text for text in prompts] == [False, True]


def test_failing_baseline_ends_session_with_reason(tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target", TRAIN.replace("def value", "1 / 0\n\n\ndef value"))
    with pytest.raises(OvernightError, match=r"crash: ZeroDivisionError"):
        start(target, tmp_path / "runs")
    state = state_of(RunDirectory(tmp_path / "runs", "night"))
    assert "ZeroDivisionError" in str(state.ended)
    assert len(state.baseline_runs) == 2  # of 3: a repeated failure is not repeated again
    assert set(refs_of(target)) == {"refs/heads/main"}


def test_target_with_pinned_seed_is_warned_about(tmp_path: Path) -> None:
    pinned = TRAIN.replace('int(os.environ["OVERNIGHT_SEED"])', "42")
    free = start(make_bowl(tmp_path / "free"), tmp_path / "runs", "free", trials=1)
    fixed = start(make_bowl(tmp_path / "fixed", pinned), tmp_path / "runs", "fixed", trials=1)
    assert ["OVERNIGHT_SEED" in run.log.read_text() for run in (free, fixed)] == [False, True]


def test_endless_trial_times_out_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = tmp_path / "hangs"

    def kill_seconds(_budget: Budget) -> float:
        """The bound ends once the trial hangs, however long it took to start."""
        if not hangs.exists():
            return budgets.TRAINING_SECONDS
        hangs.unlink()
        return 0.0

    monkeypatch.setattr(Budget, "kill_seconds", property(kill_seconds))
    target = make_bowl(tmp_path / "target", toml=TOML.replace("seconds = 20", "seconds = 600"))
    endless = f"import pathlib\nimport time\npathlib.Path({str(hangs)!r}).touch()\ntime.sleep(600)"
    hang = answer("def value():", f"{endless}\n\n\ndef value():", "Sleep")
    with OpenAIServer([hang, answer("RATE = 0.01", "RATE = 0.05", "Faster")]) as server:
        directory = start(target, tmp_path / "runs", proposer="code", trials=2, llm_base_url=server.base_url)
    assert [r.status for r in state_of(directory).records] == ["timeout", "ok"]


# Each point leaves the disk in a state from which a resume has to do something else. Any other point is followed by the
# same steps as one of these. ``move`` is a move of a ref: 1 the head, 2 the branch.
POINTS = [
    ("before", "session", 1),  # run.toml, but an empty ledger
    ("after", "run_started", 2),  # a run is neither measured nor lost
    ("before", "move", 1),  # the baseline is measured, but has no refs
    ("before", "candidate", 1),  # the ref of an attempt exists, but not its event
    ("after", "judged", 1),  # an edit is kept, but the head has not moved
    ("before", "moved", 1),  # the head has moved, but its event is missing
    ("after", "moved", 1),  # the branch is behind the head, and the proposer does not know the outcome
    ("after", "told", 2),  # results.tsv lacks a line
]


@pytest.mark.parametrize(("when", "what", "count"), POINTS)
def test_resume_after_sigkill_loses_nothing(target: Path, tmp_path: Path, when: str, what: str, count: int) -> None:
    seen = []

    def kill(now: str, event: str) -> bool:
        if (now, event) == (when, what):
            seen.append(event)
        return len(seen) == count

    runs = tmp_path / "runs"
    settings = {"policy": "greedy", "calibrate": 1, "seed": 1, "trials": 2}  # trial 1 is kept
    assert killed(lambda: start(target, runs, **settings), kill), "the point was never reached"
    directory = resume(runs)
    check_whole(directory, target, 2)
    check_replay(directory, target, settings)
    assert state_of(directory).resumed == 1


def test_repeated_sigkills_lose_nothing(target: Path, tmp_path: Path) -> None:
    runs, left = tmp_path / "runs", [5]

    def soon(now: str, _event: str) -> bool:
        left[0] -= now == "after"
        return left[0] == 0

    assert killed(lambda: start(target, runs, trials=3), soon)
    lives = 1
    while killed(lambda: resume(runs), soon):
        lives += 1
        assert lives < 60
    check_whole(RunDirectory(runs, "night"), target, 3)


def test_deleted_refs_are_restored_from_ledger(target: Path, tmp_path: Path) -> None:
    directory = start(target, tmp_path / "runs", policy="greedy", seed=1, trials=2)
    for name in ("head", "0001", "0002"):
        git(target, "update-ref", "-d", f"refs/autoresearch/night/{name}")
    git(target, "branch", "-D", "autoresearch/night")
    resume(tmp_path / "runs")
    check_whole(directory, target, 2)


def test_checked_out_branch_follows_later(target: Path, tmp_path: Path) -> None:
    directory = start(target, tmp_path / "runs", policy="greedy", seed=1, trials=1)
    git(target, "checkout", "-q", "autoresearch/night")
    was = git(target, "rev-parse", "HEAD")
    resume(tmp_path / "runs", trials=2)
    state = state_of(directory)
    assert state.head != was, "no edit was kept while the branch was checked out"
    assert git(target, "rev-parse", "HEAD") == was
    assert git(target, "status", "--porcelain") == ""
    assert "checked out" in waits_in_status(tmp_path / "runs")
    git(target, "checkout", "-q", "main")
    resume(tmp_path / "runs", trials=3)
    check_whole(directory, target, 3)
    assert waits_in_status(tmp_path / "runs") == ""


def waits_in_status(runs: Path) -> str:
    """What `overnight status` says about a branch that does not follow."""
    return str(status_json(night_now(RunDirectory(runs, "night")))["branch_waits"])


def test_branch_moved_by_user_stays(target: Path, tmp_path: Path) -> None:
    directory = start(target, tmp_path / "runs", policy="greedy", seed=1, trials=1)
    git(target, "checkout", "-q", "autoresearch/night")
    git(target, "commit", "-q", "--allow-empty", "-m", "Mine")
    mine = git(target, "rev-parse", "HEAD")
    git(target, "checkout", "-q", "main")
    resume(tmp_path / "runs", trials=2)
    assert git(target, "rev-parse", "autoresearch/night") == mine
    assert refs_of(target)["head"] == state_of(directory).head
    assert "moved" in waits_in_status(tmp_path / "runs")


def test_resume_works_after_target_moved(target: Path, tmp_path: Path) -> None:
    start(target, tmp_path / "runs", trials=1)
    shutil.move(target, tmp_path / "elsewhere")
    directory = resume(tmp_path / "runs", trials=2, target=str(tmp_path / "elsewhere"))
    check_whole(directory, tmp_path / "elsewhere", 2)
    resume(tmp_path / "runs")  # with the target of the last resume
    assert main(["diff", "night", "1", "2", "--runs", str(tmp_path / "runs")]) == 0


def test_later_resume_uses_earlier_changes(target: Path, tmp_path: Path) -> None:
    start(target, tmp_path / "runs", trials=1, breaker=5)
    times: list[str] = []

    def early(when: str, what: str) -> bool:
        times.extend([what] if (when, what) == ("after", "told") else [])
        return len(times) == 1

    assert killed(lambda: resume(tmp_path / "runs", trials=3, proposer="random", breaker=0), early)
    directory = resume(tmp_path / "runs")
    state = state_of(directory)
    check_whole(directory, target, 3)
    assert [record.proposal.proposer for record in state.records] == ["cma-es", "random", "random"]
    assert status_json(night_of(state, {}))["planned"] == 3
    now = directory.read_settings(state)["run"]
    assert (now["trials"], now["proposer"], now["breaker"]) == (3, "random", 0)
    assert dict(dict(environment_tables(state, directory.read_settings()))["run"])["breaker"] == "0"
    assert directory.read_settings()["run"]["trials"] == 1, "run.toml does not change"
    resume(tmp_path / "runs", trials=4)
    resume(tmp_path / "runs", trials=5, breaker=5)
    check_whole(resume(tmp_path / "runs"), target, 5)
    assert directory.read_settings(state_of(directory))["run"]["breaker"] == 5


def test_relative_cache_is_found_from_another_folder(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a resume would prepare the data again, which fails without a network."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    directory = start(target, tmp_path / "runs", trials=1, cache="mine")
    monkeypatch.chdir(tmp_path / "there")
    assert directory.read_settings()["run"]["cache"] == str(tmp_path / "here/mine")
    resume(tmp_path / "runs", trials=2, cache="other")
    assert directory.read_settings(state_of(directory))["run"]["cache"] == str(tmp_path / "there/other")


def test_changes_of_resume_are_shown_afterwards(target: Path, tmp_path: Path) -> None:
    start(target, tmp_path / "runs", trials=1)
    directory = resume(tmp_path / "runs", trials=3, policy="greedy")
    said = status_json(night_of(state_of(directory), {}))
    assert (said["trials"], said["planned"]) == (3, 3)
    assert state_of(directory).session.policy == "greedy"
    last = read(directory.ledger)
    changed = {"policy": "greedy", "trials": 3}
    assert [e.changes for e in last if isinstance(e, Resumed)] == [{**changed, "settings": changed}]
    assert "resumed after 1 of 3 trials" in directory.log.read_text()


def test_resume_with_another_budget_is_refused(target: Path, tmp_path: Path) -> None:
    """Otherwise longer training would count as the gain of an edit."""
    directory = start(target, tmp_path / "runs", trials=1)
    before = directory.ledger.read_bytes()
    toml = target / "target.toml"
    toml.write_text(toml.read_text().replace("seconds = 20", "seconds = 40"))
    with pytest.raises(UsageError, match=r"budget is 40s.*20s"):
        resume(tmp_path / "runs", trials=2)
    assert directory.ledger.read_bytes() == before


def test_lost_runs_are_repeated(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sandbox.process import ProcessSandbox
    from sandbox.types import SandboxBroken

    real, calls = ProcessSandbox.start, []

    def flaky(self, job):  # type: ignore[no-untyped-def]
        calls.append(job)
        if len(calls) in (5, 6):
            raise SandboxBroken("the daemon went away")
        return real(self, job)

    monkeypatch.setattr(ProcessSandbox, "start", flaky)
    directory = start(target, tmp_path / "runs")
    check_whole(directory, target, 4)
    lost = [e for e in read(directory.ledger) if isinstance(e, Lost)]
    assert [e.reason for e in lost] == ["the daemon went away"] * 2


def test_persistent_sandbox_failure_ends_session(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sandbox.process import ProcessSandbox
    from sandbox.types import SandboxBroken

    def broken(self, job):  # type: ignore[no-untyped-def]
        raise SandboxBroken("the daemon went away")

    monkeypatch.setattr(ProcessSandbox, "start", broken)
    with pytest.raises(EnvironmentProblem, match=r"3 runs.*daemon went away"):
        start(target, tmp_path / "runs")
    monkeypatch.undo()
    check_whole(resume(tmp_path / "runs"), target, 4)


def test_every_prefix_of_a_ledger_folds(target: Path, tmp_path: Path) -> None:
    events = read(start(target, tmp_path / "runs").ledger)
    for end in range(1, len(events) + 1):
        state = fold(events[:end])
        assert len(state.finished) <= len(state.records) <= 4
