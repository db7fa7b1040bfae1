"""Starts, supervises and stops a vLLM server for the sessions of this machine (``overnight llm serve``)."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from agent.errors import EnvironmentProblem, OvernightError
from agent.llm import canary
from agent.llm.api_keys import without_keys
from agent.llm.client import ChatModel
from agent.llm.control import RESTART, SPLIT, Control, Served
from agent.llm.server_plan import Plan, introduction
from agent.llm.sleep_mode import healthy
from agent.text import decisive_line, duration
from sandbox import gpu

POLL = 0.2  # seconds between checks of the process
HEALTH_EVERY = 5.0  # seconds between requests to /health
UNHEALTHY = 60.0  # seconds without a good answer, then the server is restarted
REPORT_EVERY = 15.0  # seconds between messages while the server loads
CANARY_SECONDS = 30.0  # timeout of one answer to the canary
STOP_SECONDS = 20.0  # between SIGTERM and SIGKILL
STEADY = 120.0  # seconds of health that reset the count of quick crashes
PAUSES = (1.0, 5.0, 30.0)  # seconds before the restarts after quick crashes; then the command fails
TAIL = 1 << 16  # bytes at the end of the log that are searched for the reason of a crash


class ServerSupervisor:
    """Keeps a server running until an exception, such as KeyboardInterrupt, ends it.

    Args:
        plan: of the server.
        split: plan without sleep mode, for a session whose server fails after waking.
        control: by which sessions ask for restarts.
        say: receives progress messages.
    """

    def __init__(self, plan: Plan, split: Plan, control: Control, say: Callable[[str], None]) -> None:
        self.plan, self.split, self.control, self.say = plan, split, control, say
        self.log_start = 0  # byte of the log at which the current process begins
        self.starts = 0  # number of times that the server became ready
        self.canary: str | None = None  # answer at the first start

    def run(self) -> NoReturn:
        """Start the server; restart it after crashes and at the request of a session.

        Raises OvernightError if the first start fails, the server keeps crashing, or the log cannot be written.
        """
        plan = self.plan
        try:
            plan.log.parent.mkdir(parents=True, exist_ok=True)
            plan.log.write_bytes(b"")
        except OSError as error:
            raise EnvironmentProblem(f"cannot write {plan.log}: {error.strerror}. Name another --log.") from None
        self.say(introduction(plan))
        with self.control.held():
            try:
                self._keep_running()
            except (KeyboardInterrupt, SystemExit):
                self.say("the model server has ended")
                raise

    def _keep_running(self) -> NoReturn:
        quick = 0
        while True:
            if self.starts:
                self._await_memory()
            steady, reason = 0.0, ""
            with self._process() as process:
                began = time.monotonic()
                if self._await_health(process):
                    self._announce(time.monotonic() - began)
                    since = time.monotonic()
                    reason = self._await_failure(process)
                    steady = time.monotonic() - since
            if reason in (RESTART, SPLIT):
                self.plan, quick = self.split if reason == SPLIT else self.plan, 0
                self.say(f"a session asked for a restart{' without sleep mode' if reason == SPLIT else ''}")
                continue
            reason = reason or exit_reason(process.returncode, self._log_lines())
            quick = 0 if steady > STEADY else quick + 1
            if not self.starts or quick > len(PAUSES):
                times = f"crashed {quick} times in a row" if self.starts else "did not start"
                raise OvernightError(f"the model server {times}: {reason}. Its log: {self.plan.log}")
            pause = PAUSES[max(quick, 1) - 1]
            self.say(f"the model server crashed ({reason}); it restarts in {pause:g} s")
            time.sleep(pause)

    def _announce(self, seconds: float) -> None:
        """Record the answer to the canary at the first start; report that the server is ready."""
        plan = self.plan
        if not self.starts:
            try:
                chat = ChatModel(f"{plan.root}/v1", plan.name, timeout=CANARY_SECONDS, patience=0.0)
                self.canary = canary.record(chat)
            except OvernightError as error:
                self.say(f"the server does not answer a fixed question, so sessions cannot check it by one: {error}")
        self.starts += 1
        self.control.publish(Served(os.getpid(), plan.root, self.starts, self.canary))
        if self.starts == 1:
            print(f"overnight run --llm-base-url {plan.root}/v1 --llm-model {shlex.quote(plan.name)}", flush=True)
        self.say(f"{plan.name} answers, {duration(seconds)} after its start")

    @contextlib.contextmanager
    def _process(self) -> Iterator[subprocess.Popen[bytes]]:
        """The server under its process guard, which leaves no process behind."""
        self.log_start = self.plan.log.stat().st_size
        guard = [sys.executable, "-P", "-m", "agent.llm.process_guard", str(os.getpid()), f"{STOP_SECONDS:g}"]
        environment = {**without_keys(os.environ), **self.plan.added}
        with self.plan.log.open("ab") as log:
            process = subprocess.Popen(
                [*guard, *self.plan.argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env=environment,
            )  # fmt: skip
        try:
            yield process
        finally:
            try:
                process.terminate()
                process.wait()
            except (KeyboardInterrupt, SystemExit):
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # one more would leave the server behind
                    signal.signal(number, signal.SIG_IGN)
                process.terminate()
                process.wait()
                raise

    def _await_memory(self) -> None:
        """Wait until the GPU has room: a trial may use it since the server crashed in its sleep."""
        said = False
        while (now := gpu.memory(self.plan.device)) and now.free_gb < (wanted := self.plan.needs * now.total_gb):
            if not said:
                self.say(f"waiting for the GPU: {now.free_gb:.0f} GB are free, and the server needs {wanted:.0f}")
            said = True
            time.sleep(1.0)

    def _await_health(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait without a limit, since weights may be downloading. False if the process ended."""
        began = reported = time.monotonic()
        while process.poll() is None:
            if healthy(self.plan.root):
                return True
            if time.monotonic() - reported > REPORT_EVERY:
                reported = time.monotonic()
                last = self._log_lines()[-1:] or ["nothing in the log yet"]
                self.say(f"loading for {duration(reported - began)}: {last[0][:200]}")
            time.sleep(POLL)
        return False

    def _await_failure(self, process: subprocess.Popen[bytes]) -> str:
        """Wait until the process ends (""), was unhealthy for too long (a reason), or a session asks."""
        last_healthy = checked = time.monotonic()
        while process.poll() is None:
            if request := self.control.requested():
                return request
            if (now := time.monotonic()) - checked > HEALTH_EVERY:
                checked = now
                if healthy(self.plan.root):
                    last_healthy = time.monotonic()
                elif now - last_healthy > UNHEALTHY:
                    return f"/health failed for {UNHEALTHY:.0f} s"
            time.sleep(POLL)
        return ""

    def _log_lines(self) -> list[str]:
        """The last lines of the current process, without log prefixes."""
        with self.plan.log.open("rb") as log:
            log.seek(max(self.log_start, self.plan.log.stat().st_size - TAIL))
            text = log.read().decode("utf-8", "replace")
        return [line for raw in text.splitlines() if (line := without_prefix(raw))]


def exit_reason(code: int | None, lines: Sequence[str]) -> str:
    """Exit status or signal of a process, with the line of its log that explains the exit."""
    ended = f"signal {code - 128}" if code is not None and code > 128 else f"exit status {code}"
    return ": ".join(filter(None, (ended, reason_in(lines)))).rstrip(".")


def without_prefix(line: str) -> str:
    """A line of vLLM's log without ``(EngineCore pid=12) ERROR 11-23 14:05:09 [core.py:99]``."""
    prefix = r"^(\([^()]*pid=\d+\)\s*)*([A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\]\s*)?"
    return re.sub(prefix, "", line.strip()).strip()


def reason_in(lines: Sequence[str]) -> str:
    """The line that explains a crash: the last exception that does not refer to an earlier one."""
    lines = [line for line in lines if "See root cause above" not in line]
    # pydantic writes "Value error, why [type=...]"
    return decisive_line(
        "\n".join(re.sub(r"^Value error, (.*?)( \[type=.*)?$", r"ValueError: \1", line) for line in lines)
    )
