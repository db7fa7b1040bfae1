"""Growth over a long night: python -m benchmarks.soak [--trials 1000]

A session over a trainer that trains nothing runs in this process. Memory, open files and time per trial are compared
between trial 100 and the end; then what is left of processes and files is counted. Goals: less than 20 MB of growth,
nothing left, times within 10 %.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.idle_target import Clock, make_target, session

FIRST = 100  # trials of warm-up


def memory_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> list[int]:
    return [int(p) for t in Path("/proc/self/task").iterdir() for p in (t / "children").read_text().split()]


def size_of(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    trials = parser.parse_args().trials
    memory: dict[int, float] = {}
    files: dict[int, int] = {}

    def look(trial: int) -> None:
        memory[trial], files[trial] = memory_mb(), open_files()

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        scratch = root / "tmp"
        scratch.mkdir()
        tempfile.tempdir = str(scratch)  # so that the temporary files of the agent can be counted
        clock = Clock(look)
        directory = session(make_target(root / "target"), root / "runs", clock, trials=trials)
        seconds = clock.seconds()
        early = median(seconds[k] for k in range(FIRST // 2, FIRST * 3 // 2) if k in seconds)
        late = median(seconds[k] for k in range(trials - FIRST, trials + 1) if k in seconds)
        grown = memory[trials] - memory[FIRST]
        print(f"trials                      {len(seconds)}")
        ratio = late / early
        print(f"time per trial              {early:.3f} s at trial {FIRST}, {late:.3f} s at the end: {ratio:.2f}")
        print(f"memory                      {memory[FIRST]:.1f} MB at trial {FIRST}, {grown:+.1f} MB since")
        print(f"open files                  {files[FIRST]} at trial {FIRST}, {files[trials]} at the end")
        print(f"processes left              {len(children())}")
        print(f"temporary directories left  {len(list(scratch.iterdir()))}")
        print(f"run directory per trial     {size_of(directory.path) / trials / 1e3:.1f} kB")
        print(f"of it the ledger            {directory.ledger.stat().st_size / trials / 1e3:.1f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
