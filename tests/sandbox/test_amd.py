"""AMD GPUs, read from a stand-in for amd-smi.

Its replies follow the source of amd-smi: 25.3 (ROCm 6.4) prints lists, 26.0 (ROCm 7) wraps metric and static in
``gpu_data``. The warning is what users without the group ``render`` see before the JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gpu_tools import gpu_tool

from sandbox import amd, gpu
from sandbox.types import Device, SandboxBroken

UUID, OTHER = "c2ff74a0-0000-1000-8017-1ff77417f1d6", "36ff74a0-0000-1000-8071-25d815189854"
LIST: list[dict[str, Any]] = [
    {
        "gpu": 0, "bdf": "0000:83:00.0", "uuid": UUID, "kfd_id": 51499, "node_id": 4, "partition_id": 0,
        "render": "renderD128", "card": "card1", "hsa_id": "4", "hip_id": 1, "hip_uuid": "GPU-de8287300da37c72",
    },
    {
        "gpu": 1, "bdf": "0000:0c:00.0", "uuid": OTHER, "kfd_id": 45412, "node_id": 2, "partition_id": 0,
        "render": "renderD136", "card": "card2", "hsa_id": "2", "hip_id": 0, "hip_uuid": "N/A",
    },
]  # fmt: skip
STATIC = [{"gpu": k, "asic": {"market_name": "AMD Instinct MI300X", "vendor_id": "0x1002"}} for k in (0, 1)]
NOTHING = [{"gpu": 0, "process_list": [{"process_info": "No running processes detected"}]}]


def mb(value: float, unit: str = "MB") -> dict[str, Any]:
    return {"value": value, "unit": unit}


def metric(used: float, total: float = 196592) -> list[dict[str, Any]]:
    usage = {"total_vram": mb(total), "used_vram": mb(used), "free_vram": mb(total - used), "total_gtt": mb(773683)}
    return [{"gpu": 0, "mem_usage": usage}]


def holding(*rows: tuple[int, str, Any]) -> list[dict[str, Any]]:
    facts = [
        {"name": name, "pid": pid, "memory_usage": {"gtt_mem": mb(0, "B"), "cpu_mem": mb(0, "B"), "vram_mem": memory},
         "mem_usage": memory, "usage": {"gfx": mb(0, "ns"), "enc": mb(0, "ns")}}
        for pid, name, memory in rows
    ]  # fmt: skip
    return [{"gpu": 0, "process_list": [{"process_info": one} for one in facts]}]


UNKNOWN = '[{"gpu": 0, "mem_usage": "N/A", "asic": "N/A", "process_list": "N/A", "hip_id": "N/A", "uuid": "N/A"}]'


class Smi:
    """A stand-in whose replies are files."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder = folder
        gpu_tool(folder, monkeypatch, "amd-smi", f'echo "$@" >> {folder}/calls\ncat {folder}/$1')
        self.reply(list=LIST, static=STATIC, metric=metric(300), process=NOTHING)

    def reply(self, **entries: Any) -> None:
        for command, found in entries.items():
            (self.folder / command).write_text(found if isinstance(found, str) else json.dumps(found, indent=4))


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smi:
    return Smi(tmp_path, monkeypatch)


GPU = Device("rocm", UUID, number="1")


@pytest.mark.parametrize("wrapped", [False, True], ids=["ROCm 6.4", "ROCm 7"])
def test_devices_have_the_number_that_hip_uses(smi: Smi, wrapped: bool) -> None:
    smi.reply(static={"gpu_data": STATIC} if wrapped else STATIC)
    found = amd.devices()
    assert [(d.kind, d.uuid, d.model, d.number) for d in found] == [
        ("rocm", UUID, "AMD Instinct MI300X", "1"),
        ("rocm", OTHER, "AMD Instinct MI300X", "0"),
    ]
    assert (found[0].torch, found[0].visible) == ("cuda", "1")
    assert gpu.devices() == found


@pytest.mark.parametrize("wrapped", [False, True], ids=["ROCm 6.4", "ROCm 7"])
def test_memory_is_in_use_and_in_total(smi: Smi, wrapped: bool) -> None:
    text = json.dumps({"gpu_data": metric(17153)} if wrapped else metric(17153))
    smi.reply(metric=f"WARNING: User is missing the following required groups: render\n{text}")
    memory = gpu.memory(GPU)
    assert memory is not None
    assert (memory.used_gb, memory.total_gb) == (17153 / 1024, 196592 / 1024)
    assert f"metric --mem-usage -g {UUID} --json" in (smi.folder / "calls").read_text()


def test_processes_are_listed_with_their_memory(smi: Smi) -> None:
    smi.reply(
        process=holding((12, "python3", mb(3 * 2**30, "B")), (77, "VLLM::EngineCore", mb(58, "GB")), (9, "x", "N/A"))
    )
    assert amd.processes(GPU) == [(12, "python3", 3072.0), (77, "VLLM::EngineCore", 58 * 1024.0), (9, "x", None)]
    smi.reply(process=NOTHING)
    assert amd.processes(GPU) == []


@pytest.mark.parametrize("text", ["", "not JSON", "[", '{"gpu_data": "N/A"}', "[1, 2]", "[{}]", UNKNOWN])
def test_unknown_output_is_no_gpu(smi: Smi, text: str) -> None:
    smi.reply(list=text, static=text, metric=text, process=text)
    assert amd.devices() == []
    assert gpu.memory(GPU) is None
    assert amd.processes(GPU) == []


def test_without_amd_smi_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert amd.devices() == []
    assert gpu.MemoryWatch(GPU).problems() == []


def test_job_needs_free_memory(smi: Smi) -> None:
    gpu.check_free(GPU, 76.0)
    smi.reply(metric=metric(190_000), process=holding((77, "VLLM::EngineCore", mb(58, "GB"))))
    with pytest.raises(SandboxBroken, match=r"Held by VLLM::EngineCore \(process 77, 59392 MiB\)"):
        gpu.check_free(GPU, 76.0)


def test_memory_left_allocated_is_reported(smi: Smi) -> None:
    watch = gpu.MemoryWatch(GPU)
    smi.reply(metric=metric(9300))
    assert watch.problems() == ["left 9000 MB of the GPU's memory in use"]
    smi.reply(process=holding((12, "other", mb(9, "GB"))))
    assert watch.problems() == [], "another process may hold it"
