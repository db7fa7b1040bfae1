"""Attacks that pass information between jobs. Rows 41, 42 and 51 of the battery.

A model that knows the requests of pass A can hide look-ahead in pass B. So two jobs must share nothing that one can
change and the other can read. What remains is timing: a plain read of a cached page is faster.
"""

from __future__ import annotations

from attack import Attack, at_import, in_load, in_main

from sandbox.selfcheck import side_channels
from sandbox.types import Guarantee


def reached(program: str) -> str:
    """Code that runs a program of ``sandbox.selfcheck`` and fails with what the program could do."""
    lines = program.strip().splitlines()
    assert lines[-1].startswith("print(json.dumps("), lines[-1]
    found = lines[-1].removeprefix("print(json.dumps(").removesuffix("))")
    return "\n".join(
        ["def _attack():", *(f"    {line}" for line in lines[:-1]), f"    return {found}", "_found = _attack()",
         "if _found:", '    raise SystemExit(f"REACHED {_found[:20]}")']
    )  # fmt: skip


ATTACKS = (
    # 41. Asks which pages of shared files are cached, and loads or evicts chosen pages.
    Attack(
        41, "asks what is cached",
        (at_import(reached(side_channels.PAGE_CACHE)),),
        "same", only=(Guarantee.ISOLATES_JOBS,),
    ),
    # 42. Locks and watches a file that both model processes and other trials see.
    Attack(
        42, "locks shared files",
        (in_load(reached(side_channels.LOCKS)),),
        "same", only=(Guarantee.ISOLATES_JOBS,),
    ),
    # 51. Changes times, modes, attributes or contents of files that outlive the job.
    Attack(
        51, "marks files of the host",
        (in_main(reached(side_channels.MARK)),),
        "same", only=(Guarantee.READ_ONLY_CODE,),
    ),
)  # fmt: skip
