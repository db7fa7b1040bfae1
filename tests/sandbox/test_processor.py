"""Processor time of a process tree."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from sandbox.processor import ProcessorTime

SPEND = "import time\nwhile time.process_time() < 0.6:\n    pass\n"
PARENT = f"""
import subprocess, sys, time
subprocess.run([sys.executable, "-c", {SPEND!r}])
child = subprocess.Popen([sys.executable, "-c", {SPEND + "time.sleep(60)"!r}])
print("ready", flush=True)
while True:
    time.sleep(1)
"""


def test_counts_running_and_ended_processes() -> None:
    own = ProcessorTime()
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, start_new_session=True) as job:
        root = subprocess.Popen(["sleep", "600"])  # a process without children
        try:
            assert job.stdout is not None
            job.stdout.readline()
            assert ProcessorTime().seconds(root.pid) == 0.0
            while own.seconds(job.pid) < 0.9:  # ends once both children are counted; ticks are cut off
                pass
            before = own.seconds(job.pid)
        finally:
            root.kill()
            root.wait()
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
    assert own.seconds(None) >= before >= 0.9, "a root that ended keeps its last sample"
