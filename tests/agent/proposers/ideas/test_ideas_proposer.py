"""``--proposer ideas``: order, skipped recipes, end, replay, and whole sessions."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from sessions import resume, start, state_of
from targets import git, make_bowl
from test_bank import IDEA

from agent.cli import main
from agent.errors import SearchExhausted
from agent.proposers.ideas.bank import Idea, read_idea
from agent.proposers.ideas.choice import BankMaterial
from agent.proposers.ideas.proposer import IdeasProposer
from agent.proposers.protocol import Context
from agent.types import IdeaUse, Proposal, Record, Verdict

SOURCE = "A = 1\nB = 1\nC = 1\nprint(A, B, C)\n"


def idea(name: str, expected: float, category: str = "optimiser", value: int = 2) -> Idea:
    text = IDEA.replace("Larger rate", f"Set {name} to {value}").replace("RATE", name).replace("= 2", f"= {value}")
    text = text.replace("expected = 0.5", f"expected = {expected}").replace('"optimiser"', f'"{category}"')
    return read_idea(f"{name.lower()}-{value}.md", text, name)


def context(source: str = SOURCE, history: tuple[Record, ...] = (), **fields: object) -> Context:
    plain = Context(
        parent="c0", source=source, path="train.py", history=history, incumbent_runs=(), noise_sd=None, notes="",
        hardware="", budget="", trial=len(history) + 1, seed=3, plateau=0, metric="loss", goal="minimize",
    )  # fmt: skip
    return dataclasses.replace(plain, **fields)  # type: ignore[arg-type]


def judged(number: int, proposal: Proposal, kept: bool) -> Record:
    verdict = Verdict("keep" if kept else "revert", 1.0, 1.0, 0.0, None, 1, 1, 0, "")
    return Record(number=number, proposal=proposal, candidate="c", verdict=verdict)


BANK = (idea("A", 0.2), idea("B", 0.9, "schedule"), idea("C", 0.5))


def test_best_expected_idea_comes_first() -> None:
    proposal = IdeasProposer(BANK).ask(context())
    assert (proposal.source, proposal.subject, proposal.category) == ("ideas", "Set B to 2", "schedule")
    assert "+B = 2" in proposal.diff
    assert "arXiv:0000.00000" in proposal.rationale
    assert proposal.text == SOURCE.replace("B = 1", "B = 2")


def test_every_idea_is_tried_once_then_search_is_exhausted() -> None:
    proposer, history, subjects = IdeasProposer(BANK), (), []
    for number in range(1, 4):
        proposal = proposer.ask(context(history=history))
        subjects.append(proposal.subject)
        history = (*history, judged(number, proposal, kept=False))
    assert sorted(subjects) == ["Set A to 2", "Set B to 2", "Set C to 2"]
    with pytest.raises(SearchExhausted):
        proposer.ask(context(history=history))


def test_open_trial_is_not_proposed_again() -> None:
    proposer = IdeasProposer(BANK)
    first = proposer.ask(context())
    second = proposer.ask(context(open=(Record(number=1, proposal=first),), trial=2))
    assert second.subject != first.subject


def test_recipe_that_does_not_apply_is_skipped_and_reported(tmp_path: Path) -> None:
    changed = SOURCE.replace("B = 1", "B = 7")
    proposal = IdeasProposer(BANK).ask(context(changed, transcripts=tmp_path / "trial", run_directory=tmp_path))
    assert proposal.subject == "Set C to 2"
    assert proposal.search["skipped"] == 1
    assert "b-2: skipped" in (tmp_path / proposal.transcript / "ideas.md").read_text()
    with pytest.raises(SearchExhausted, match="b-2"):
        IdeasProposer(BANK[1:2]).ask(context(changed))
    many = [dataclasses.replace(BANK[1], key=f"idea-{number}") for number in range(60)]
    with pytest.raises(SearchExhausted, match="60 do not apply") as found:
        IdeasProposer(many).ask(context(changed))
    assert "idea-59" not in str(found.value)


def test_ask_depends_only_on_context() -> None:
    history = (judged(1, IdeasProposer(BANK).ask(context()), kept=True),)
    asks = [IdeasProposer(BANK).ask(context(history=history)) for _ in range(2)]
    assert asks[0] == asks[1]


def test_outcomes_of_a_category_change_the_order() -> None:
    bank = (*(idea("A", 0.5, value=value) for value in range(2, 12)), idea("B", 0.4, "schedule"))
    proposer = IdeasProposer(bank)
    first = proposer.ask(context())
    history = tuple(
        judged(k, dataclasses.replace(first, subject=bank[k].name, form=str(k)), kept=False) for k in range(1, 10)
    )
    firsts = [proposer.ask(context(history=history, seed=seed)).category for seed in range(20)]
    assert firsts.count("schedule") > 15


def test_rebase_keeps_newer_edit() -> None:
    proposer = IdeasProposer(BANK)
    proposal = proposer.ask(context())
    assert proposer.rebase(proposal, f"D = 5\n{SOURCE}", "train.py").startswith("D = 5\nA = 1\nB = 2\n")


def bowl_with_ideas(folder: Path) -> Path:
    target = make_bowl(folder)
    (target / "ideas").mkdir()
    comments = {"rate": "  # best at 0.1", "depth": " # best at 6"}
    for name, old, new in (("rate", "RATE = 0.01", "RATE = 0.1"), ("depth", "DEPTH = 4 ", "DEPTH = 40 ")):
        text = IDEA.replace("Larger rate", f"Change {name}").replace("RATE = 1", old + comments[name])
        text = text.replace("RATE = 2", new + comments[name])
        (target / "ideas" / f"{name}.md").write_text(text.replace("expected = 0.5", f"expected = 0.{len(name)}"))
    git(target, "add", "-A")
    git(target, "commit", "-q", "-m", "Add ideas")
    return target


def test_session_keeps_helpful_idea_then_ends(tmp_path: Path) -> None:
    target = bowl_with_ideas(tmp_path / "target")
    settings = {"proposer": "ideas", "policy": "greedy", "calibrate": 1}
    directory = start(target, tmp_path / "runs", trials=1, **settings)
    directory = resume(tmp_path / "runs", trials=5)
    state = state_of(directory)
    outcomes = {record.proposal.subject: record.decision for record in state.finished}
    assert outcomes == {"Change rate": "keep", "Change depth": "revert"}
    assert {record.proposal.source for record in state.finished} == {"ideas"}
    assert state.ended is not None
    assert "idea bank" in state.ended


def test_command_lists_and_shows_ideas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = str(bowl_with_ideas(tmp_path / "target"))
    assert main(["ideas", "--target", target, "--json"]) == 0
    applies = {row["key"]: row["applies"] for row in json.loads(capsys.readouterr().out)}
    assert (applies["rate"], applies["value-embeddings"]) == (True, False)
    assert main(["ideas", "--target", target]) == 0
    assert "value-embeddings" in capsys.readouterr().out
    assert main(["ideas", "--target", target, "change RATE"]) == 0
    assert "+RATE = 0.1" in capsys.readouterr().out
    assert main(["ideas", "--target", target, "rat"]) == 2
    assert "'rate'" in capsys.readouterr().err


@pytest.mark.parametrize("recorded", [True, False])
def test_prompt_leaves_out_tried_ideas(recorded: bool) -> None:
    proposal = IdeasProposer(BANK).ask(context())
    assert proposal.ideas == IdeaUse("b-2", left=3)
    if not recorded:  # a ledger of an earlier version
        proposal = dataclasses.replace(proposal, ideas=None)
    shown = BankMaterial(BANK).show(context(history=(judged(1, proposal, kept=False),)), 10)
    assert set(shown) == {"a-2", "c-2"}


def test_prompt_shows_new_ideas_first() -> None:
    proposal = Proposal("code", "llm", "c0", "", ideas=IdeaUse("", shown=("a-2",) * 12))
    given = [context(trial=n, history=(judged(1, proposal, False),)) for n in range(20)]
    assert {key for each in given for key in BankMaterial(BANK).show(each, 1)} == {"b-2", "c-2"}


def test_prompt_shows_the_same_ideas_for_the_same_context() -> None:
    assert BankMaterial(BANK).show(context(trial=5), 2) == BankMaterial(BANK).show(context(trial=5), 2)
