"""``overnight llm serve``: a vLLM server for this machine's sessions: started, waited for, kept up, and stopped.

vLLM runs in an environment of its own, since it pins much; all that is needed here is its executable. The server
listens on the loopback only: for its sleep mode vLLM has to open its development endpoints, which let whoever reaches
them do more than chat.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from agent.errors import EnvironmentProblem, OvernightError, UsageError
from agent.llm.api_keys import without_keys
from agent.llm.sleep_mode import call
from agent.text import decisive_line, duration
from sandbox import gpu
from sandbox.types import Device

VLLM = "OVERNIGHT_VLLM"  # names the executable where --vllm does not
INSTALL = "python3 -m venv ~/vllm && ~/vllm/bin/pip install vllm"
AWAKE_SHARE, SPLIT_SHARE = 0.9, 0.3  # of the GPU's memory: while trials wait for a server that sleeps; beside them
STRUCTURED = '{"backend": "xgrammar", "disable_any_whitespace": true}'  # or white space may fill an answer to its limit

POLL = 0.2  # seconds between looks at the process
HEALTH_EVERY = 5.0  # seconds between looks at /health
UNHEALTHY = 60.0  # seconds without a good answer after which a server is restarted
TELL_EVERY = 15.0  # seconds between words about a server that is still loading
STOP_SECONDS = 20.0  # for an orderly end; then it is killed
STEADY = 120.0  # seconds of health after which a death is no longer a quick one
PAUSES = (1.0, 5.0, 30.0)  # seconds before each restart after a quick death; after the last one it is given up
TAIL = 1 << 16  # bytes at the end of the log in which the reason of a death is looked for


@dataclass(frozen=True)
class Plan:
    """A server, fully spelled out."""

    argv: tuple[str, ...]
    added: dict[str, str]  # to the environment
    host: str
    port: int
    name: str  # of the model, as the server calls it
    log: Path
    device: Device
    needs: float  # share of the GPU's memory
    sleeps: bool

    @property
    def root(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def find_vllm(given: str | None) -> str:
    """The executable: ``--vllm``, else OVERNIGHT_VLLM, else on PATH."""
    wanted = given or os.environ.get(VLLM) or "vllm"
    found = shutil.which(str(Path(wanted).expanduser()))
    if found is None:
        raise EnvironmentProblem(
            f"there is no program {wanted}. Install vLLM into an environment of its own: {INSTALL}; then name it with "
            f"--vllm ~/vllm/bin/vllm, or in {VLLM}."
        )
    return str(Path(found).absolute())


def check_address(host: str, port: int) -> None:
    """Raises UsageError for one that others could reach, EnvironmentProblem where somebody listens already."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise UsageError(
            f"--host {host}: the server is for sessions of this machine, and its development endpoints are for no "
            f"network. Use 127.0.0.1; for another host's GPU, run this command there and forward the port with ssh -L."
        )
    if not 0 < port < 65536:
        raise UsageError(f"--port {port}: a port is a number from 1 to 65535.")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot listen on {host}:{port}: {error.strerror}. Choose another --port, or end what listens there."
            ) from None


def make_plan(
    program: str,
    model: str,
    host: str,
    port: int,
    on_gpu: bool,
    sleeps: bool,
    share: float | None,
    window: int | None,
    log: Path,
    extra: Sequence[str],
) -> Plan:
    """The flags that fit: what the user has given after ``--`` wins, except for the address."""
    own = {"--host", "--port", "--gpu-memory-utilization", "--max-model-len", "--enable-sleep-mode"}
    if twice := next((w for w in extra if w.split("=")[0].replace("_", "-") in own), None):
        hint = "say --sleep" if "sleep" in twice else "give it before the --"
        raise UsageError(f"{twice}: overnight llm serve sets this itself; {hint}.")
    if share is not None and not 0 < share <= 1:
        raise UsageError(f"--gpu-memory-utilization {share:g}: a share from 0 to 1.")
    share = share or (AWAKE_SHARE if sleeps else SPLIT_SHARE)
    name = _value_of("--served-model-name", extra) or (Path(model).resolve().name if Path(model).is_dir() else model)
    words = ["--served-model-name", name, "--seed", "0", "--structured-outputs-config", STRUCTURED]
    words += ["--disable-uvicorn-access-log"]  # /health would fill the log
    if on_gpu:
        words += ["--gpu-memory-utilization", f"{share:g}"]
    if window:
        words += ["--max-model-len", str(window)]
        if not on_gpu:  # vLLM 0.32 on a CPU dies of a prompt in several parts when the request has a seed
            words += ["--max-num-batched-tokens", str(window)]
    added = {"VLLM_NO_USAGE_STATS": "1", "PATH": f"{Path(program).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    if sleeps:
        words += ["--enable-sleep-mode"]
        added["VLLM_SERVER_DEV_MODE"] = "1"  # without it there are no endpoints for it
    argv = (program, "serve", model, *words, *extra, "--host", host, "--port", str(port))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    device = Device("cuda", visible) if on_gpu else Device("cpu")
    return Plan(argv, added, host, port, name, log, device, share if on_gpu else 0.0, sleeps)


def _value_of(flag: str, words: Sequence[str]) -> str:
    for word, following in pairwise([*words, ""]):
        key, _, value = word.partition("=")
        if key.replace("_", "-") == flag:
            return value or following
    return ""


@contextlib.contextmanager
def told_to_stop() -> Iterator[list[int]]:
    """The signals that have asked for the end so far. One that is ignored (nohup) stays ignored."""
    told: list[int] = []
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, lambda got, _frame: told.append(got))
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Keeping:
    """The life of the server, from the first start to the end; ``told`` is filled when it is to end."""

    def __init__(self, plan: Plan, told: list[int], say: Callable[[str], None]) -> None:
        self.plan, self.told, self.say = plan, told, say
        self.began_at = 0  # where in the log the present process begins

    def run(self) -> None:
        plan = self.plan
        try:
            plan.log.parent.mkdir(parents=True, exist_ok=True)
            plan.log.write_bytes(b"")
        except OSError as error:
            raise EnvironmentProblem(f"cannot write {plan.log}: {error.strerror}. Name another --log.") from None
        self._introduce()
        up_before, quick = False, 0
        while not self.told:
            if up_before:
                self._await_memory()
            steady, reason = 0.0, ""
            with self._process() as process:
                began = time.monotonic()
                if self._await_health(process):
                    if not up_before:
                        name = shlex.quote(plan.name)
                        print(f"overnight run --llm-base-url {plan.root}/v1 --llm-model {name}", flush=True)
                    self.say(f"{plan.name} answers, {duration(time.monotonic() - began)} after its start")
                    up_before, since = True, time.monotonic()
                    reason = self._await_trouble(process)
                    steady = time.monotonic() - since
            if self.told:
                break
            reason = reason or self._reason(process.returncode)
            quick = 0 if steady > STEADY else quick + 1
            if not up_before or quick > len(PAUSES):
                times = f"died {quick} times in a row" if up_before else "did not come up"
                raise OvernightError(f"the model server {times}: {reason}. Its log: {plan.log}")
            pause = PAUSES[max(quick, 1) - 1]
            self.say(f"the model server died ({reason}); it is started again in {pause:g} s")
            self._sleep(pause)
        self.say("the model server has ended")

    def _introduce(self) -> None:
        plan = self.plan
        self.say(f"{shlex.join(plan.argv)}\nlog: {plan.log}")
        if plan.device.kind == "cpu" and not plan.sleeps:
            self.say("nvidia-smi lists no GPU: the server runs without sleep mode")
        elif not plan.sleeps:
            self.say(
                f"without sleep mode the server keeps {plan.needs:.0%} of the GPU's memory "
                f"(--gpu-memory-utilization), and trials get the rest"
            )

    @contextlib.contextmanager
    def _process(self) -> Iterator[subprocess.Popen[bytes]]:
        """The server under its keeper; none of it is left afterwards."""
        self.began_at = self.plan.log.stat().st_size
        words = [
            sys.executable,
            "-m",
            "agent.llm.process_guard",
            str(os.getpid()),
            f"{STOP_SECONDS:g}",
            *self.plan.argv,
        ]
        environment = {**without_keys(os.environ), **self.plan.added}
        with self.plan.log.open("ab") as log:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
            )
        try:
            yield process
        finally:
            process.terminate()
            process.wait()

    def _await_memory(self) -> None:
        """Where the server died while it slept, a trial may have the GPU now: wait for the memory to be free."""
        said = False
        while not self.told and (now := gpu.memory(self.plan.device)) is not None:
            if now.free_gb >= self.plan.needs * now.total_gb:
                return
            if not said:
                wanted = self.plan.needs * now.total_gb
                self.say(f"waiting for the GPU: {now.free_gb:.0f} GB are free, and the server wants {wanted:.0f}")
                said = True
            self._sleep(1.0)

    def _await_health(self, process: subprocess.Popen[bytes]) -> bool:
        """However long it takes: weights may have to be downloaded. False if it died, or is to end."""
        began = told = time.monotonic()
        while not self._over(process):
            if self._healthy():
                return True
            if time.monotonic() - told > TELL_EVERY:
                told = time.monotonic()
                last = self._last_lines()[-1:] or ["no word yet"]
                self.say(f"loading for {duration(told - began)}: {last[0][:200]}")
            time.sleep(POLL)
        return False

    def _await_trouble(self, process: subprocess.Popen[bytes]) -> str:
        """Return when the process has ended or is to end; and if it has not been healthy for long: that, in words."""
        good = looked = time.monotonic()
        while not self._over(process):
            if (now := time.monotonic()) - looked > HEALTH_EVERY:
                looked = now
                if self._healthy():
                    good = time.monotonic()
                elif now - good > UNHEALTHY:
                    return f"no good word from /health for {UNHEALTHY:.0f} s"
            time.sleep(POLL)
        return ""

    def _over(self, process: subprocess.Popen[bytes]) -> bool:
        return bool(self.told) or process.poll() is not None

    def _healthy(self) -> bool:
        try:
            return call(self.plan.root, "GET", "/health", 10.0)[0] == 200
        except OSError:
            return False

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.told and time.monotonic() < end:
            time.sleep(min(POLL, seconds))

    def _last_lines(self) -> list[str]:
        """The end of what the present process has written, without who wrote it and when."""
        with self.plan.log.open("rb") as log:
            log.seek(max(self.began_at, self.plan.log.stat().st_size - TAIL))
            text = log.read().decode("utf-8", "replace")
        return [line for raw in text.splitlines() if (line := bare(raw))]

    def _reason(self, code: int | None) -> str:
        why = decisive(self._last_lines())
        ended = f"signal {code - 128}" if code is not None and code > 128 else f"exit status {code}"
        return f"{ended}{f': {why}' if why else ''}".rstrip(".")


def bare(line: str) -> str:
    """A line of vLLM's log without its marks: ``(EngineCore pid=12) ERROR 11-23 14:05:09 [core.py:99] why``."""
    line = re.sub(r"^(\([^()]*pid=\d+\)\s*)+", "", line.strip())
    return re.sub(r"^[A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\]\s*", "", line).strip()


def decisive(lines: Sequence[str]) -> str:
    """The line that says why: not the last exception, where that one only says that another came before it."""
    told = (
        re.sub(r"^Value error, (.*?)( \[type=.*)?$", r"ValueError: \1", line) for line in lines
    )  # as pydantic says it
    return decisive_line("\n".join(line for line in told if "See root cause above" not in line))
