"""Attacks of the kinds that trials by hand found. Rows 43 to 64 of the battery, and more of 11 and 41."""

from __future__ import annotations

from attack import Attack, at_import, at_save, in_call, in_load, in_main, looking_ahead
from attacks_between_jobs import reached

from sandbox.layout import COUNTERS
from sandbox.selfcheck import escapes, side_channels
from sandbox.types import Guarantee

GRANDCHILD = """
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    held = [os.open(entry.path, os.O_RDWR) for entry in os.scandir(os.environ["OVERNIGHT_CHANNEL"])
            if entry.name in ("logits", "answered")]
    for number in held:
        os.set_inheritable(number, True)
    os.execv(sys.executable, [sys.executable, "-c", "while True: pass", "@MARK@"])
"""

ATTACKS = (
    # 41. Reads counters of the whole machine, which a job of the first pass can change.
    Attack(
        41, "reads counters of the machine",
        (at_import("import os\nos.environ['PLACES'] = " + repr(" ".join(COUNTERS))),
         at_import(reached(side_channels.COUNTERS))),
        "same", only=(Guarantee.ISOLATES_JOBS,),
    ),
    # 43. A detached grandchild of the model process holds the channel's files open and computes.
    Attack(43, "a grandchild that holds the channel", (in_load(GRANDCHILD),), "same"),
    # 44. Shortens the file of the answer while the scorer reads it.
    Attack(
        44, "truncates its answers",
        (in_load("""
import os, threading, time
def cut():
    while True:
        os.truncate(os.path.join(os.environ["OVERNIGHT_CHANNEL"], "logits"), 64)
        time.sleep(0.0005)
threading.Thread(target=cut, daemon=True).start()
"""),),
        "invalid|crash", "cut its answer short|ended before",
    ),
    # 45. A statistic of the whole batch, at a scale that looks like noise.
    Attack(
        45, "statistics of the batch",
        (in_call("""
logits = model(ids)
return logits + 0.2 * (torch.bincount(ids.flatten(), minlength=logits.size(-1)) + 1.0).log()
"""),),
        "invalid", "ahead|state|repeat",
    ),
    # 46. Looks ahead only in its first call.
    Attack(
        46, "looks ahead in its first call",
        (
            in_load("calls = []"),
            in_call("""
calls.append(1)
following = F.one_hot(ids.roll(-1, 1), meta["vocab_size"]).float()
following[:, -1] = 0
return model(ids) + (8.0 * following if len(calls) == 1 else 0.0)
"""),
        ),
        "invalid", "ahead|state|repeat",
    ),
    # 47. Looks ahead only at starts of rows and of documents.
    Attack(
        47, "looks ahead at starts",
        (looking_ahead("(ids == 0) | (torch.arange(ids.size(1)) < 2)", 8.0),),
        "invalid", "ahead",
    ),
    # 48. Probabilities of zero.
    Attack(
        48, "logits of minus infinity",
        (in_call("logits = model(ids)\nreturn logits.masked_fill(logits < logits.mean(), float('-inf'))"),),
        "invalid", "finite",
    ),
    # 50. Nameless and enlarged files in the channel, which is memory of the host.
    Attack(
        50, "nameless and large files in the channel",
        (in_load("""
import os
channel = os.environ["OVERNIGHT_CHANNEL"]
done = []
def attempt(what, do, *given):
    try:
        do(*given)
        done.append(what)
    except OSError:
        pass
attempt("nameless", os.open, channel, os.O_TMPFILE | os.O_RDWR)
attempt("new", os.open, channel + "/new", os.O_CREAT | os.O_RDWR)
attempt("renamed", os.rename, channel + "/logits", channel + "/other")
attempt("linked", os.link, channel + "/logits", channel + "/other")
attempt("removed", os.unlink, channel + "/ids")
for name in ("ids", "asked", "header.json"):
    attempt(name, os.truncate, os.path.join(channel, name), 0)
for name in ("logits", "answered"):
    attempt("large " + name, os.truncate, os.path.join(channel, name), 1 << 30)
if done:
    raise SystemExit(f"REACHED {done}")
"""),),
        "same", only=(Guarantee.READ_ONLY_CODE,),
    ),
    # 53. Looks for what the training data were made from, before the clock starts.
    Attack(
        53, "rebuilds the training data",
        (in_main(reached(escapes.READ_SOURCES)), in_main("""
try:
    from tokenizers import Tokenizer
    raise SystemExit("REACHED the tokenizer")
except ImportError:
    pass
""")),
        "same", only=(Guarantee.MASKS_FILES,),
    ),
    # 54. Trains for eight seconds while the checkpoint is loaded: within the bound of every program, but many times
    # what the baseline needs.
    Attack(
        54, "trains shortly while loading",
        (in_load("import time\nbegan = time.monotonic()\nwhile time.monotonic() - began < 8:\n    pass"),),
        "timeout", "load",
    ),
    # 11. Uses much processor time before the clock starts.
    Attack(
        11, "computes during start-up",
        (in_main("while True:\n    torch.randn(64, 64) @ torch.randn(64, 64)"),),
        "timeout", "startup",  # processor time, or on a busy machine wall time
    ),
    # 56. Outputs that are no regular files, and very many of them.
    Attack(
        56, "special files as outputs",
        (at_save("""
import os, socket
out = os.environ["OVERNIGHT_OUT"]
os.mkfifo(out + "/model.safetensors")
socket.socket(socket.AF_UNIX).bind(out + "/summary.json")
try:
    for number in range(200_000):
        os.mkfifo(f"{out}/{number}")
except OSError:
    pass
""", save=False),),
        "crash", "checkpoint|wrote more than|filled",
    ),
    # 56. A checkpoint whose header promises more than memory holds.
    Attack(
        56, "a hostile safetensors header",
        (at_save("""
import os
with open(os.environ["OVERNIGHT_OUT"] + "/model.safetensors", "wb") as file:
    file.write((1 << 62).to_bytes(8, "little") + b"{" * 100)
with open(os.environ["OVERNIGHT_OUT"] + "/model.json", "w") as file:
    file.write('{"vocab_size": 300, "sequence_length": 64}')
""", save=False),),
        "crash", "safetensors|SafetensorError|[Hh]eader",
    ),
    # 64. Raises its priority, changes its limits, and leaves or makes control groups.
    Attack(
        64, "priorities and control groups",
        (at_import("""
import ctypes, glob, os, resource
_reached = []
def _attempt(what, do, *given):
    try:
        do(*given)
        _reached.append(what)
    except (OSError, ValueError):
        pass
_attempt("nice", os.nice, -1)
_attempt("real-time", os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))
_attempt("files", resource.setrlimit, resource.RLIMIT_FSIZE, (-1, -1))
_attempt("processes", resource.setrlimit, resource.RLIMIT_NICE, (40, 40))
for _path in glob.glob("/sys/fs/cgroup/**/cgroup.procs", recursive=True)[:50]:
    _attempt(_path, lambda: open(_path, "w").write("0"))
_attempt("new group", os.mkdir, "/sys/fs/cgroup/mine")
_libc = ctypes.CDLL(None, use_errno=True)
for _kind in (b"cgroup", b"cgroup2"):
    if _libc.mount(b"none", b"/tmp", _kind, 0, None) == 0:
        _reached.append("mounted " + _kind.decode())
if _libc.unshare(0x02000000) == 0:
    _reached.append("group namespace")
if _reached:
    raise SystemExit(f"REACHED {_reached}")
"""),),
        "same", only=(Guarantee.HIDES_HOST, Guarantee.LIMITS_PROCESSES),
    ),
)  # fmt: skip
