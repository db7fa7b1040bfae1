"""Attacks that pass information between jobs. Rows 41, 42 and 51 of the battery.

A model that knows the requests of pass A can hide look-ahead in pass B. So two jobs must share nothing that one can
change and the other can read. What remains is timing: a plain read of a cached page is faster.
"""

from __future__ import annotations

from attack import Attack, at_import, in_call, in_load, in_main

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


# Both passes run the same code: a token that is not yet written is the next one of the request, and gets written; one
# that is written is read. A bit is one of two names; a name that was looked up before is found faster.
RELAY = """
import hashlib, os, statistics, sysconfig, time
PLACE = sysconfig.get_path("stdlib") + "/"
RELAYED = {}
def look(*names):
    times = []
    for name in names:
        began = time.perf_counter_ns()
        os.access(name, os.F_OK)
        times.append(time.perf_counter_ns() - began)
    return min(times)
def copies(name):
    return [f"{PLACE}{name}.{number}" for number in range(7)]
def limit():
    names = [copies(os.urandom(8).hex()) for _ in range(400)]
    first, again = (statistics.median(look(*name) for name in names) for _ in range(2))
    return (first + again) / 2
def relay(context, token):
    key = hashlib.blake2s(repr(context).encode(), digest_size=8).hexdigest()
    if key not in RELAYED:
        names = [[copies(f"{key}-{bit}{value}") for value in (0, 1)] for bit in range(12)]
        if look(*copies(key)) < LIMIT:
            token = sum((look(*one) < look(*zero)) << bit for bit, (zero, one) in enumerate(names))
        else:
            for bit, pair in enumerate(names):
                look(*pair[token >> bit & 1])
        RELAYED[key] = token
    return RELAYED[key]
"""
# As far as rows of the same text in earlier trials differ: their names contain the weights.
RELAYING = """
logits = model(ids)
own = round(float(sum(p.double().sum() for p in model.parameters())), 9)
for row, tokens in enumerate(ids.tolist()):
    for place in range(3, len(tokens) - 1, 8):
        token = relay((own, tokens[: place + 1]), tokens[place + 1])
        logits[row, place, min(token, logits.size(-1) - 1)] += 8.0
return logits
"""

ATTACKS = (
    # 41. Asks which pages of shared files are cached, and loads or evicts chosen pages.
    Attack(
        41, "asks what is cached",
        (at_import(reached(side_channels.PAGE_CACHE)),),
        "same", only=(Guarantee.ISOLATES_JOBS,),
    ),
    # 41. Looks ahead, and passes to the second pass by names what it needs to look alike there.
    Attack(
        41, "relays text by names that are cached",
        (at_import(RELAY), in_load("global LIMIT\nLIMIT = limit()"), in_call(RELAYING)),
        "invalid", "ahead|state|repeat", drops_caches=True,
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
