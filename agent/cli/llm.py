"""``overnight llm``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.cli.options import Commands, add_command
from agent.cli.output import say


def add(commands: Commands) -> None:
    parser = add_command(
        commands, "llm", serve, "cache", usage="overnight llm serve MODEL [OPTIONS] [-- OPTIONS OF VLLM]"
    )
    parser.add_argument("action", choices=("serve",), metavar="serve")
    parser.add_argument("model", metavar="MODEL", help="name on the hub, or a folder")
    parser.add_argument("--vllm", metavar="PATH", help="executable of vLLM (default: OVERNIGHT_VLLM, else on PATH)")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (default: 127.0.0.1)")
    parser.add_argument(
        "--gpu-memory-utilization", type=float, metavar="SHARE",
        help="share of the GPU's memory (default: 0.9; 0.3 without sleep mode)",
    )  # fmt: skip
    parser.add_argument("--max-model-len", type=int, metavar="TOKENS", help="context window (default: the model's)")
    parser.add_argument(
        "--sleep", action=argparse.BooleanOptionalAction, help="vLLM's sleep mode (default: if nvidia-smi lists a GPU)"
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="vLLM's output (default: CACHE/llm/vllm-PORT.log)")


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
    """Run a vLLM server for this machine's sessions and restart it if it fails.

    Raises:
        SystemExit, KeyboardInterrupt: SIGTERM with exit status 0; Ctrl-C.
        UsageError, EnvironmentProblem: a wrong option or a missing program, before anything starts.
        OvernightError: the server does not stay up; quotes the decisive line of its log.
    """
    from agent.llm.control import Control
    from agent.llm.server import ServerSupervisor
    from agent.llm.server_plan import SPLIT_SHARE, check_address, find_vllm, make_plan
    from sandbox.gpu import gpus

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
