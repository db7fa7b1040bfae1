"""Attacks on the machine: damage, persistence, escape. Rows 12 to 20, 25 and 29 of the battery."""

from __future__ import annotations

from attack import Attack, at_import, at_save, in_load, in_main

from sandbox.types import Guarantee

SECONDS = {"kind": "seconds", "amount": 1.0, "wall_seconds": 1.0}
DAEMON = """
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", "@MARK@"])
"""

ATTACKS = (
    # 12. Leaves a detached daemon, in training and in each model process.
    Attack(12, "leaves a daemon", (at_save(DAEMON), in_load(DAEMON)), "same"),
    # 13. Ignores every signal that can be ignored, and never ends.
    Attack(
        13, "ignores signals",
        (at_save("""
import signal, time
for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    try:
        time.sleep(600)
    except BaseException:
        pass
"""),),
        "timeout", "training", budget=SECONDS,
    ),
    # 14. Forks, at most 300 times: a failed guarantee must not harm the machine.
    Attack(
        14, "fork bomb",
        (in_main("""
import os, time
for _ in range(300):
    if os.fork() == 0:
        time.sleep(120)
        os._exit(0)
"""),),
        "crash", "BlockingIOError|Resource temporarily unavailable", limits={"processes": 64},
        only=(Guarantee.LIMITS_PROCESSES, Guarantee.KILLS_TREE),
    ),
    # 15. Fills its output folder, then its temporary folder.
    Attack(
        15, "fills the disk",
        (at_save("""
import os
for place in (os.environ["OVERNIGHT_OUT"], "/tmp"):
    with open(os.path.join(place, "all"), "wb") as file:
        for _ in range(600):
            file.write(bytes(1 << 20))
            file.flush()
"""),),
        "crash", "No space left|File too large|filled the|wrote more than|signal 25",
        limits={"disk_gb": 0.06, "memory_gb": 2.0},
        only=(Guarantee.LIMITS_DISK, Guarantee.LIMITS_MEMORY),
    ),
    # 16. Uses all memory, at most 2 GB.
    Attack(
        16, "takes all memory",
        (in_main("held = [bytearray(os.urandom(1 << 20)) * 64 for _ in range(32)]\n"), at_import("import os")),
        "oom", "out of memory", limits={"memory_gb": 1.0}, only=(Guarantee.LIMITS_MEMORY,),
    ),
    # 17. Prints a gigabyte of binary data with escape sequences and without line ends.
    Attack(
        17, "floods stdout",
        (at_save(r"""
import os
junk = b"\x1b]0;owned\x07\x1b[2J\x1b[31m\x00\xff\xfe<script>" * 32768
for _ in range((1 << 30) // len(junk)):
    os.write(1, junk)
os.write(1, b"\n")
"""),),
        "same",
    ),
    # 18. Replaces the checkpoint by a link to a host file, and writes to paths outside its folder.
    Attack(
        18, "links in its outputs",
        (at_save("""
import os
out = os.environ["OVERNIGHT_OUT"]
for place in ("../escaped", "../../escaped", "@RUNS@/escaped", "@TARGET@/escaped"):
    try:
        open(os.path.join(out, place), "w").close()
    except OSError:
        pass
os.symlink("@DATA@/validation.bin", os.path.join(out, "model.safetensors"))
os.symlink("/etc/shadow", os.path.join(out, "summary.json"))
""", save=False),),
        "crash", "model.safetensors: a symbolic link",
    ),
    # 19. A pickle that runs a command, under the checkpoint's name.
    Attack(
        19, "a pickle as checkpoint",
        (at_save("""
import os, pickle
class Bomb:
    def __reduce__(self):
        return os.system, ("touch @RUNS@/pickled; touch /tmp/@MARK@",)
with open(os.path.join(os.environ["OVERNIGHT_OUT"], "model.safetensors"), "wb") as file:
    pickle.dump(Bomb(), file)
with open(os.path.join(os.environ["OVERNIGHT_OUT"], "model.json"), "w") as file:
    file.write('{"vocab_size": 300, "sequence_length": 64}')
""", save=False),),
        "crash", "safetensors|SafetensorError|[Hh]eader",
    ),
    # 20. Overwrites training data and every cache that the next trial may read.
    Attack(
        20, "poisons the next trial",
        (at_save("""
import os, pathlib, sysconfig
places = [os.environ["OVERNIGHT_DATA"], os.getcwd(), "/tmp", "/dev/shm", os.path.expanduser("~"), "@DATA@", "@TARGET@"]
places += [sysconfig.get_path("purelib"), os.environ["TORCHINDUCTOR_CACHE_DIR"], os.environ["TRITON_CACHE_DIR"]]
for place in map(pathlib.Path, places):
    for name in ("train-00000.bin", "train.py", "sitecustomize.py", "nanogpt_target/harness.py"):
        try:
            place.mkdir(parents=True, exist_ok=True)
            (place / name).chmod(0o777) if (place / name).exists() else None
        except OSError:
            pass
        try:
            (place / name).write_bytes(b"poisoned = '@MARK@'" * 1000)
        except OSError:
            pass
"""),),
        "same",
    ),
    # 25. Connects to the host's loopback, an internet address, an abstract Unix socket, vsock.
    Attack(
        25, "opens sockets",
        (at_import("""
import socket
_reached = []
for _family, _address in (
    (socket.AF_INET, ("127.0.0.1", @PORT@)), (socket.AF_INET, ("192.0.2.1", 80)), (socket.AF_INET6, ("::1", @PORT@)),
    (socket.AF_UNIX, chr(0) + "@MARK@"), (socket.AF_UNIX, "/var/run/docker.sock"), (40, (2, @PORT@)), (40, (1, @PORT@)),
):
    try:
        with socket.socket(_family, socket.SOCK_STREAM) as _way:
            _way.settimeout(0.5)
            _way.connect(_address)
            _reached.append(str(_address))
    except (OSError, TypeError, ValueError):
        pass
if _reached:
    raise SystemExit(f"REACHED {_reached}")
"""),),
        "same",
    ),
    # 29. A sparse checkpoint of 100 GB.
    Attack(
        29, "a checkpoint of 100 GB",
        (at_save("""
import os
with open(os.path.join(os.environ["OVERNIGHT_OUT"], "model.safetensors"), "wb") as file:
    file.truncate(100 << 30)
""", save=False),),
        "crash", "model.safetensors|File too large|Invalid argument|signal 25",
    ),
)  # fmt: skip
