"""Format of the idea bank."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from agent.errors import UsageError
from agent.proposers.code.history import CATEGORIES
from agent.proposers.ideas.bank import MOST_WORDS, applies_to, load_bank, read_idea

IDEA = """+++
name = "Larger rate"
category = "optimiser"
applies = "the loss still falls at the end"
cost = "none"
interactions = []
source = "Example 2020, arXiv:0000.00000"
expected = 0.5
+++
Train faster.

```diff
--- a/train.py
+++ b/train.py
@@ -1 +1 @@
-RATE = 1
+RATE = 2
```
"""


def test_shipped_bank_loads() -> None:
    bank = load_bank()
    assert len(bank) >= 30
    assert {idea.category for idea in bank} <= set(CATEGORIES)
    assert max(Counter(idea.recipe for idea in bank if idea.recipe).values()) == 1


def test_idea_has_prose_and_recipe() -> None:
    idea = read_idea("larger-rate.md", IDEA, "larger-rate.md")
    assert (idea.key, idea.text, idea.expected) == ("larger-rate", "Train faster.", 0.5)
    assert applies_to(idea, "RATE = 1\n", "train.py") is True
    assert applies_to(idea, "RATE = 3\n", "train.py") is False


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('source = "Example 2020, arXiv:0000.00000"\n', "", "source"),
        ('category = "optimiser"\n', "", "category"),
        ('"optimiser"', '"optimizer"', "category"),
        ("cost =", "costs =", "costs"),
        ('cost = "none"', 'cost = ""', "cost"),
        ("expected = 0.5", "expected = 2", "expected must be a number from 0 to 1, not 2"),
        ("expected = 0.5", "expected = nan", "expected must be a number from 0 to 1, not nan"),
        ("expected = 0.5", "expected = true", "expected"),
        ("Larger rate", "Larger rate" * 6, "name"),
        ("Train faster.", "", "text"),
        ("Train faster.", "word " * (MOST_WORDS + 1), "text"),
        ("+++\nname", "name", "+++"),
        ("expected = 0.5", "expected =", "file.md"),
        ("```\n", "```\n\n```diff\n-a\n```\n", "recipe"),
    ],
)
def test_wrong_file_names_file_and_key(old: str, new: str, key: str) -> None:
    assert old in IDEA
    with pytest.raises(UsageError) as error:
        read_idea("file.md", IDEA.replace(old, new, 1), "some/file.md")
    assert "some/file.md" in str(error.value)
    assert key in str(error.value)


@pytest.mark.parametrize("file", ["other.md", "z-loss.md"])
def test_two_ideas_of_one_name(tmp_path: Path, file: str) -> None:
    folder = tmp_path / "ideas"
    folder.mkdir()
    (folder / "larger-rate.md").write_text(IDEA)
    (folder / file).write_text(IDEA.replace("Larger rate", "Larger Rate" if file == "other.md" else "New name"))
    with pytest.raises(UsageError, match=file):
        load_bank(tmp_path)


def test_folder_of_target_adds_ideas(tmp_path: Path) -> None:
    (tmp_path / "ideas").mkdir()
    (tmp_path / "ideas" / "larger-rate.md").write_text(IDEA)
    (tmp_path / "ideas" / "notes.txt").write_text("not an idea")
    assert [idea.key for idea in load_bank(tmp_path)] == [*(idea.key for idea in load_bank()), "larger-rate"]
