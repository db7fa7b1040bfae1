"""``overnight llm serve``: a vLLM server for the sessions of this machine."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from agent.cli.output import say
from agent.llm.server import ServerSupervisor, check_address, find_vllm, make_plan, stop_signals
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
    """Returns 0 after SIGTERM, 130 after Ctrl-C.

    Raises:
        UsageError, EnvironmentProblem: what is wrong, before anything is started.
        OvernightError: the server does not stay up; with the line of its log that says why.
    """
    program = find_vllm(vllm)
    check_address(host, port)
    on_gpu = bool(gpus())
    plan = make_plan(
        program, model, host, port, on_gpu, on_gpu if sleep is None else sleep, gpu_memory_utilization, max_model_len,
        log or Path(cache).expanduser() / "llm" / f"vllm-{port}.log", extra,
    )  # fmt: skip
    with stop_signals() as stop:
        ServerSupervisor(plan, stop, say).run()
    return 130 if stop[0] == signal.SIGINT else 0
