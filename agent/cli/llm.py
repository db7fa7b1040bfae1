"""``overnight llm``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.cli.output import say
from agent.llm.control import Control
from agent.llm.server import ServerSupervisor
from agent.llm.server_plan import SPLIT_SHARE, check_address, find_vllm, make_plan
from sandbox.gpu import gpus


def serve(
    action: str,
    model: str,
    vllm: str | None,
    port: int,
    host: str,
    gpu_memory_utilization: float | None,
    max_model_len: int | None,
    sleep: bool | None,
    log: Path | None,
    cache: str,
    extra: Sequence[str] = (),
) -> int:
    """Exits with 0 after SIGTERM, 130 after Ctrl-C. Raises ``OvernightError`` if the server does not stay up."""
    program = find_vllm(vllm)
    check_address(host, port)
    on_gpu = bool(gpus())
    log = log or Path(cache).expanduser() / "llm" / f"vllm-{port}.log"
    given, sleeps = gpu_memory_utilization, on_gpu if sleep is None else sleep
    shares = {sleeps: given, False: given if not sleeps else min(given or 1.0, SPLIT_SHARE)}
    plan, split = (
        make_plan(program, model, host, port, on_gpu, mode, shares[mode], max_model_len, log, extra)
        for mode in (sleeps, False)
    )
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, lambda *_: sys.exit(0))
    ServerSupervisor(plan, split, Control(Path(cache), port), say).run()
