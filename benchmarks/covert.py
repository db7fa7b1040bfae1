"""How many bits one job can pass to a later one by what it reads, and to a job beside it by what it maps.

    python -m benchmarks.covert [--sandbox bwrap docker] [--bits 4000]

A job touches an item for each 1 of a random message: it looks up a name, or reads a page of a file that is not cached.
A second job times the same items. Half of the message sets the threshold; the errors in the other half give the bits
per item, with the kernel's caches as they are and (as root) dropped between the jobs. ``mapped``: a job beside it
reads in /proc/self/pagemap which pages only it has mapped; no clock is needed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import sys
import time

from sandbox import caches, make_sandbox
from sandbox.selfcheck.bench import Bench
from sandbox.types import Mount

STEP = 1 << 16  # bytes between two pages: the kernel may read some pages ahead

SEND = """
import json, mmap, os, time
data, bits = os.environ["DATA"], os.environ["MESSAGE"]
file = os.open(data + "/pages", os.O_RDONLY)
view = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
view.madvise(mmap.MADV_RANDOM)
began = time.perf_counter()
for number, bit in enumerate(bits):
    if bit == "1":
        if os.environ["MEDIUM"] == "names":
            os.access(f"{data}/{number}", os.F_OK)
        elif os.environ["MEDIUM"] == "pages":
            os.pread(file, 1, number * STEP)
        else:
            view[number * STEP]
took = time.perf_counter() - began
if os.environ["MEDIUM"] == "mapped":
    print("ready", flush=True)
    while not os.path.exists(data + "/done"):
        time.sleep(0.05)
print(json.dumps(took))
""".replace("STEP", str(STEP))

RECEIVE = """
import ctypes, json, mmap, os, time
data, bits = os.environ["DATA"], int(os.environ["COUNT"])
file = os.open(data + "/pages", os.O_RDONLY)
view = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
view.madvise(mmap.MADV_RANDOM)
start = int(next(l for l in open("/proc/self/maps") if l.rstrip().endswith("/pages")).split("-")[0], 16)
maps = open("/proc/self/pagemap", "rb", buffering=0)
times = []
for number in range(bits):
    began = time.perf_counter_ns()
    if os.environ["MEDIUM"] == "names":
        os.access(f"{data}/{number}", os.F_OK)
    elif os.environ["MEDIUM"] == "pages":
        os.pread(file, 1, number * STEP)
    else:
        view[number * STEP]
        maps.seek((start + number * STEP) // 4096 * 8)
        times.append(int.from_bytes(maps.read(8), "little") >> 56 & 1)
        continue
    times.append(time.perf_counter_ns() - began)
print(json.dumps(times))
""".replace("STEP", str(STEP))


def measure(bench: Bench, medium: str, count: int, dropped: bool) -> dict[str, float]:
    """Bits per item, and bits per second of both jobs together. ``dropped``: the caches, between the jobs."""
    data = bench.folder(f"data-{medium}-{dropped}")
    with (data / "pages").open("wb") as file:
        for _ in range(count * STEP >> 20):
            file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    draw = random.Random(0)
    message = [draw.choice("01") for _ in range(count)]
    mounts = {"data": Mount(data)}
    env = {"DATA": "{data}", "MEDIUM": medium, "MESSAGE": "".join(message), "COUNT": str(count)}
    if medium == "mapped":
        job = bench.job(SEND, mounts=mounts, env=env)
        running = bench.start(job)
        began = time.perf_counter()
        times = bench.answer(RECEIVE, mounts=mounts, env=env)
        sent = time.perf_counter() - began
        (data / "done").touch()
        bench.end(job, running)
    else:
        sent = bench.answer(SEND, mounts=mounts, env=env, forgotten=dropped)
        times = bench.answer(RECEIVE, mounts=mounts, env=env)
    known = _information(message, times)
    seconds = sent + (0.0 if medium == "mapped" else sum(times) / 1e9)
    return {"bits per item": known, "bits per second": known * count / seconds}


def _information(message: list[str], times: list[int]) -> float:
    half = len(message) // 2
    limit = min(sorted(times[:half]), key=lambda t: _wrong(message[:half], times[:half], t))
    share = _wrong(message[half:], times[half:], limit)
    return max(0.0, 1 + sum(p * math.log2(p) for p in (share, 1 - share) if p > 0))


def _wrong(message: list[str], times: list[int], limit: int) -> float:
    """Share of wrong decisions, if times up to ``limit`` mean a 1."""
    return sum((t <= limit) != (bit == "1") for bit, t in zip(message, times, strict=True)) / len(message)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.covert")
    parser.add_argument("--sandbox", nargs="+", default=["bwrap"])
    parser.add_argument("--bits", type=int, default=4000)
    given = parser.parse_args()
    for name in given.sandbox:
        with Bench(make_sandbox(name)) as bench:
            for medium, dropped in itertools.product(("names", "pages", "mapped"), (False, True)):
                if dropped and (medium == "mapped" or not caches.can_drop()):
                    continue
                found = {key: round(value, 3) for key, value in measure(bench, medium, given.bits, dropped).items()}
                facts = {"sandbox": name, "root": os.geteuid() == 0, "medium": medium, "dropped": dropped}
                print(json.dumps({**facts, **found}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
