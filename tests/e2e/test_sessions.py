"""Whole sessions: the installed command, the real trainer, real sandboxes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import budgets
from conftest import ModelServer, Overnight
from openai_server import Answer, OpenAIServer
from sessions import check_whole, refs_of, state_of
from targets import git

from agent.patch.apply import unified_diff
from agent.rundir.directory import RunDirectory

CLIP = "torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)"
SHORT = ("--budget", "20steps", "--seed", "1", "--threads", "1")


def containers() -> str:
    """All containers of the engine, running or not."""
    done = subprocess.run(["docker", "ps", "-aq"], capture_output=True, text=True, timeout=budgets.COMMAND_SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_session_in_docker(docker_image: str, overnight: Overnight, tmp_path: Path) -> None:
    target, runs = tmp_path / "target", tmp_path / "runs"
    before = containers()
    overnight("init", target, "--preset", "demo")
    words = ("--target", target, "--runs", runs, "--tag", "night", "--proposer", "cma-es", "--trials", "3")
    overnight("run", *words, "--sandbox", "docker", "--image", docker_image, *SHORT, seconds=budgets.SESSION_SECONDS)
    directory = RunDirectory(runs, "night")
    check_whole(directory, target, 3)
    state = state_of(directory)
    assert state.session.sandbox == "docker"
    assert all(run.status == "ok" and run.value for r in state.records for run in r.runs), "a point of the space failed"
    assert any(run.role == "test" for run in state.baseline_runs)
    assert containers() == before
    log = json.loads(overnight("log", "night", "--json", "--runs", runs).stdout)
    assert [trial["trial"] for trial in log] == [1, 2, 3]
    report = Path(overnight("report", "night", "--runs", runs).stdout.strip())
    assert report.stat().st_size > 10_000


def test_model_server_proposes_hyperparameters(vllm_server: ModelServer, overnight: Overnight, tmp_path: Path) -> None:
    """The server's structured outputs turn the replies of random weights into edits."""
    target, runs = tmp_path / "target", tmp_path / "runs"
    overnight("init", target, "--preset", "demo")
    words = ("--target", target, "--runs", runs, "--tag", "night", "--proposer", "hparams", "--trials", "4")
    model = ("--llm-base-url", vllm_server.base_url, "--llm-model", vllm_server.model)
    rules = ("--sandbox", "bwrap", "--policy", "greedy", "--calibrate", "1")
    overnight("run", *words, *model, *rules, *SHORT, seconds=budgets.SESSION_SECONDS)
    directory = RunDirectory(runs, "night")
    check_whole(directory, target, 4)
    records = state_of(directory).records
    assert {record.proposal.source for record in records} == {"llm"}
    judged = [record for record in records if record.candidate]
    assert judged, "no reply became an edit"
    assert any(run.value is not None for record in judged for run in record.runs)
    names = set(judged[0].proposal.params or {})
    for record in judged:
        changed = [
            line for line in record.proposal.diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")
        ]
        assert {line[1:].split(" = ")[0] for line in changed} <= names


def edit(source: str, *changes: tuple[str, str], subject: str, category: str = "architecture") -> str:
    """A reply of a model: a header and a diff of ``source``."""
    text = source
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    diff = unified_diff(source, text, "train.py")
    return f"Category: {category}\nSubject: {subject}\nRationale: It was worth a try.\n\n```diff\n{diff}```\n"


def test_edit_that_cannot_be_loaded_is_repaired(overnight: Overnight, tmp_path: Path) -> None:
    """Training works, the checkpoint does not load: only the smoke test finds this before the budget is spent."""
    target, runs = tmp_path / "target", tmp_path / "runs"
    overnight("init", target, "--preset", "demo")
    source = (target / "train.py").read_text()
    wide = ("width: int = math.ceil(DEPTH", "width: int = 32 + math.ceil(DEPTH")
    lost = ("    model.eval()\n", "    model.evaluate()\n")
    replies = [edit(source, wide, lost, subject="Widen"), edit(source, wide, subject="Widen")]
    with OpenAIServer(replies) as server:
        overnight(
            "run", "--target", target, "--runs", runs, "--tag", "night", "--proposer", "code", "--sandbox", "bwrap",
            "--policy", "greedy", "--calibrate", "1", "--trials", "1", *SHORT, "--llm-base-url", server.base_url,
            seconds=budgets.SESSION_SECONDS,
        )  # fmt: skip
    directory = RunDirectory(runs, "night")
    check_whole(directory, target, 1)
    (record,) = state_of(directory).records
    assert record.status == "ok"
    (failed,) = record.repairs[0].runs
    assert list(failed.seconds) == ["startup", "smoke"]
    assert "model.evaluate()" in server.chats[1]["messages"][2]["content"]


def test_edits_of_architecture_optimiser_and_loop(overnight: Overnight, tmp_path: Path) -> None:
    """Scripted replies, good and bad, on the real trainer in bubblewrap."""
    target, runs = tmp_path / "target", tmp_path / "runs"
    overnight("init", target, "--preset", "demo")
    source = (target / "train.py").read_text()
    mute = ("logits = SOFTCAP * torch.tanh(logits)", "logits = 0.01 * torch.tanh(logits)")
    replies: list[str | Answer] = [
        edit(source, ("F.relu(self.up(x)).square()", "F.gelu(self.up(x))"), subject="Use GELU in the MLP"),
        edit(source, ("MUON_MOMENTUM = 0.95", "MUON_MOMENTUM = 0.9"), subject="Lower momentum", category="optimiser"),
        edit(
            source,
            ("        update(run.progress,", f"        {CLIP}\n        update(run.progress,"),
            subject="Clip gradients",
            category="optimiser",
        ),
        edit(source, mute, subject="Flatten the logits"),
        "We should train a larger model for longer.",
        "Subject: Not there\n\n```diff\n--- a/train.py\n+++ b/train.py\n@@ @@\n-    warp = 9\n+    warp = 10\n```\n",
        edit(source, ("reshape(rows, length, width)", "reshape(rows, width, length)"), subject="Mix up two sizes"),
        edit(source, ("loss.backward()", "(loss * float('nan')).backward()"), subject="Lose the gradient"),
    ]  # fmt: skip
    with OpenAIServer(replies, at_end=Answer(text="I have no idea.")) as server:
        overnight(
            "run", "--target", target, "--runs", runs, "--tag", "night", "--proposer", "code", "--sandbox", "bwrap",
            "--policy", "greedy", "--calibrate", "1", "--trials", "8", "--repairs", "0", *SHORT,
            "--llm-base-url", server.base_url,
            seconds=budgets.SESSION_SECONDS,
        )  # fmt: skip
    directory = RunDirectory(runs, "night")
    check_whole(directory, target, 8)
    state = state_of(directory)
    statuses = [record.status for record in state.records]
    assert statuses[:7] == ["ok", "ok", "ok", "ok", "patch_rejected", "patch_rejected", "crash"]
    assert statuses[7] in ("crash", "diverged")
    assert state.records[3].decision == "revert", "flat logits cannot be better"
    assert [r.decision for r in state.records[4:]] == ["revert"] * 4
    assert "mat1 and mat2 shapes" in state.records[6].runs[0].reason
    numbers = {f"{n:04d}" for n in (1, 2, 3, 4, 7, 8)}
    assert set(refs_of(target)) == {*numbers, "head", "refs/heads/autoresearch/night", "refs/heads/main"}
    assert git(target, "rev-parse", "HEAD") == state.baseline
    assert git(target, "status", "--porcelain") == ""
    kept = git(target, "log", "--format=%s", f"{state.baseline}..autoresearch/night").splitlines()
    assert kept == [r.proposal.subject for r in reversed(state.kept)]
