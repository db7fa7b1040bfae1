"""AMD GPUs, as amd-smi lists them (ROCm 6.4 and 7). Written from the documentation of amd-smi; never run on an AMD GPU.

Covers: which GPUs there are, the memory of one GPU, the memory that each process holds. Does not cover: rocm-smi, which
amd-smi replaces.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sandbox.tools import output_of
from sandbox.types import Device

_MIB = {"B": 2**-20, "KB": 2**-10, "MB": 1.0, "GB": 1024.0}  # amd-smi's units are powers of two


def devices() -> list[Device]:
    """The AMD GPUs of this machine; empty without amd-smi."""
    names = {entry.get("gpu"): _part(entry, "asic").get("market_name", "") for entry in _query("static", "--asic")}
    return [
        Device("rocm", str(entry["uuid"]), model=names.get(entry.get("gpu"), ""), number=str(entry["hip_id"]))
        for entry in _query("list", "-e")
        if "uuid" in entry and str(entry.get("hip_id", "")).isdigit()
    ]


def memory_mb(device: Device) -> tuple[float, float] | None:
    """MiB in use and in total; None if amd-smi does not report them."""
    for entry in _query("metric", "--mem-usage", "-g", device.uuid):
        used, total = (_mib(_part(entry, "mem_usage").get(name)) for name in ("used_vram", "total_vram"))
        if used is not None and total is not None:
            return used, total
    return None


def processes(device: Device) -> list[tuple[int, str, float | None]]:
    """Id, name and MiB of each process on a GPU; None where amd-smi does not report the memory."""
    found = []
    for entry in _query("process", "-g", device.uuid):
        listed = entry.get("process_list")
        for item in listed if isinstance(listed, list) else []:
            facts = _part(item, "process_info")  # a text if there is no process
            if str(facts.get("pid", "")).isdigit():
                held = _mib(_part(facts, "memory_usage").get("vram_mem"))
                found.append((int(facts["pid"]), str(facts.get("name", "")), held))
    return found


def _query(*words: str) -> list[dict[str, Any]]:
    """One entry for each GPU; empty if amd-smi fails."""
    return parse(output_of("amd-smi", *words, "--json"))


def parse(text: str) -> list[dict[str, Any]]:
    """The entries of what amd-smi prints: warnings, then a list, or in ROCm 7 an object with ``gpu_data``."""
    start = min((place for mark in "[{" if (place := text.find(mark)) >= 0), default=len(text))
    try:
        found = json.loads(text[start:])
    except ValueError:
        return []
    entries = found.get("gpu_data", []) if isinstance(found, dict) else found
    return [entry for entry in entries if isinstance(entry, dict)]


def _part(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of an entry; empty if amd-smi does not report it, and writes N/A."""
    found = entry.get(name)
    return found if isinstance(found, Mapping) else {}


def _mib(amount: Any) -> float | None:
    """``{"value": 1024, "unit": "MB"}`` in MiB; None for a text such as N/A."""
    try:
        return float(amount["value"]) * _MIB[amount["unit"]]
    except (KeyError, TypeError, ValueError):
        return None
