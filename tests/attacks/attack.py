"""One attack of the battery: edits of the honest train.py, and the expected result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.types import Guarantee

Edit = tuple[str, str]  # a text of the honest train.py and its replacement

TOP = "SOFTCAP = 15.0"
BEGIN = "    run.begin(model)\n"
SAVE = "    harness.save(model)\n"
LOAD = "    weights, meta = harness.read_checkpoint(checkpoint, device)\n"
CALL = "            return model(ids)\n"


def at_import(code: str) -> Edit:
    """Run ``code`` whenever train.py is imported: in training, and in both model processes."""
    return TOP, f"{code.strip()}\n\n{TOP}"


def in_main(code: str) -> Edit:
    """Run ``code`` after warm-up, before the clock starts."""
    return BEGIN, _indented(code, 4) + BEGIN


def at_save(code: str, save: bool = True) -> Edit:
    """Run ``code`` after training. ``save``: then save the checkpoint."""
    return SAVE, _indented(code, 4) + (SAVE if save else "")


def in_load(code: str) -> Edit:
    """Run ``code`` when a model process loads the checkpoint."""
    return LOAD, _indented(code, 4) + LOAD


def in_call(code: str) -> Edit:
    """Replace the model's call by ``code``, which uses ``ids`` and ``model`` and returns logits."""
    return CALL, _indented(code, 12)


def looking_ahead(where: str, by: float) -> Edit:
    """Add ``by`` to the logit of the next token, which is one position further on in the request.

    ``where``: a mask over the positions, as an expression of ``ids``.
    """
    return in_call(f"""
logits = model(ids)
following = F.one_hot(ids.roll(-1, 1), logits.size(-1)).float()
following[:, -1] = 0
return logits + {by} * following * ({where})[..., None]
""")


def _indented(code: str, width: int) -> str:
    return "".join(f"{' ' * width}{line}\n" if line else "\n" for line in code.strip().splitlines())


@dataclass(frozen=True)
class Attack:
    """A row of the battery.

    ``expect``: "same" is the honest baseline's value, bit for bit; "checkpoint" is the true value of the checkpoint;
    otherwise statuses without a value ("invalid|crash"), whose reason matches ``reason``. ``only``: guarantees that a
    sandbox needs for this attack. Placeholders in the edits, for what an attacker may know or guess: ``@MARK@`` is a
    word in no other process, ``@PORT@`` a port that the host listens on, ``@DATA@``, ``@RUNS@`` and ``@TARGET@``
    folders of the host, ``@HELD_OUT@`` the names of held-out files.
    """

    row: int
    name: str
    edits: tuple[Edit, ...]
    expect: str
    reason: str = ""
    budget: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[Guarantee, ...] = ()
    drops_caches: bool = False  # repelled only where the session may drop the kernel's caches
    note: str = ""  # explains the value in the table

    @property
    def id(self) -> str:
        return f"{self.row:02d}-{self.name.replace(' ', '-')}"
