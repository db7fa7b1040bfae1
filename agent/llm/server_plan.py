"""The command line and the address of a vLLM server that ``overnight llm serve`` starts.

vLLM pins many packages, so it has its own Python environment; only its executable is needed here. The server listens
on the loopback only, because its sleep mode needs vLLM's development endpoints, which do more than chat.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import EnvironmentProblem, UsageError
from agent.llm.client import is_loopback
from sandbox.types import Device

VLLM = "OVERNIGHT_VLLM"  # names the executable where --vllm does not
INSTALL = "python3 -m venv ~/vllm && ~/vllm/bin/pip install vllm"
SLEEP_SHARE, SPLIT_SHARE = 0.9, 0.3  # of the GPU's memory: with sleep mode, and beside running trials
KEPT_BACK = 0.05  # share of the rest for the driver and the CUDA context of a trial
STRUCTURED = '{"backend": "xgrammar", "disable_any_whitespace": true}'  # else white space can fill an answer


@dataclass(frozen=True)
class Plan:
    """Command line, environment and address of a server."""

    argv: tuple[str, ...]
    added: dict[str, str]  # variables on top of the environment
    root: str  # of its address, without /v1
    name: str  # of the model in requests
    log: Path
    device: Device
    needs: float  # share of the GPU's memory
    sleeps: bool


def address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def find_vllm(given: str | None) -> str:
    """Path of the executable: ``--vllm``, else OVERNIGHT_VLLM, else on PATH. Raises EnvironmentProblem."""
    wanted = given or os.environ.get(VLLM) or "vllm"
    found = shutil.which(str(Path(wanted).expanduser()))
    if found is None:
        raise EnvironmentProblem(
            f"there is no program {wanted}. Install vLLM into its own environment: {INSTALL}; then name it with "
            f"--vllm ~/vllm/bin/vllm, or in {VLLM}."
        )
    return str(Path(found).absolute())


def check_address(host: str, port: int) -> None:
    """Raises UsageError for an address outside the loopback, EnvironmentProblem for one in use."""
    if not is_loopback(address(host, port)):
        raise UsageError(
            f"--host {host}: the server has development endpoints, which must not be open to a network. Use 127.0.0.1. "
            f"For the GPU of another host, run this command there and forward the port with ssh -L."
        )
    if not 0 < port < 65536:
        raise UsageError(f"--port {port} is not a number from 1 to 65535.")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot listen on {host}:{port}: {error.strerror}. Choose another --port, or stop what listens there."
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
    """The command line of the server.

    Args:
        on_gpu: whether the machine has a GPU.
        sleeps: whether sleep mode is enabled.
        share: of the GPU's memory, from 0 to 1; None takes the default for ``sleeps``.
        window: context window in tokens; None takes the model's own.
        extra: options after ``--``; they override all others but the address.

    Raises:
        UsageError: ``extra`` holds an option that Overnight sets, or ``share`` is out of range.
    """
    own = ("--host", "--port", "--gpu-memory-utilization", "--max-model-len", "--enable-sleep-mode")
    if twice := next((w for w in extra if w.split("=")[0].replace("_", "-") in own), None):
        hint = "use --sleep" if "sleep" in twice else "give it before the --"
        raise UsageError(f"{twice}: overnight llm serve sets this option; {hint}.")
    if share is not None and not 0 < share <= 1:
        raise UsageError(f"--gpu-memory-utilization {share:g} is not between 0 and 1.")
    share = share or (SLEEP_SHARE if sleeps else SPLIT_SHARE)
    options = argparse.ArgumentParser(allow_abbrev=False)
    options.add_argument("--served-model-name", "--served_model_name", default="")
    name = options.parse_known_args(extra)[0].served_model_name or (
        Path(model).resolve().name if Path(model).is_dir() else model
    )
    words = ["--served-model-name", name, "--seed", "0", "--structured-outputs-config", STRUCTURED]
    words += ["--disable-uvicorn-access-log"]  # /health would fill the log
    if on_gpu:
        words += ["--gpu-memory-utilization", f"{share:g}"]
    if window:
        words += ["--max-model-len", str(window)]
        if not on_gpu:  # vLLM 0.32 on a CPU crashes when it splits the prompt of a request with a seed
            words += ["--max-num-batched-tokens", str(window)]
    added = {"VLLM_NO_USAGE_STATS": "1", "PATH": f"{Path(program).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    if sleeps:
        words += ["--enable-sleep-mode"]
        added["VLLM_SERVER_DEV_MODE"] = "1"  # enables the endpoints of sleep mode
    argv = (program, "serve", model, *words, *extra, "--host", host, "--port", str(port))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    device = Device("cuda", visible) if on_gpu else Device("cpu")
    return Plan(argv, added, address(host, port), name, log, device, share if on_gpu else 0.0, sleeps)


def introduction(plan: Plan) -> str:
    """The command of the server, and what runs without sleep mode means."""
    note = (
        f"\nwithout sleep mode the server keeps {plan.needs:.0%} of the GPU's memory (--gpu-memory-utilization), and "
        "trials get the rest"
    )
    if plan.device.kind == "cpu":
        note = "\nnvidia-smi lists no GPU: the server runs without sleep mode"
    return f"{shlex.join(plan.argv)}\nlog: {plan.log}{'' if plan.sleeps else note}"
