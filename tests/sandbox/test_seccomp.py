"""The list of system calls is valid for Docker and libseccomp, and lacks dangerous calls."""

from __future__ import annotations

import json

import pytest

from sandbox import seccomp

PROFILE = json.loads(seccomp.PROFILE.read_text())
NAMES = [name for rule in PROFILE["syscalls"] for name in rule["names"]]
NEVER = {
    "mount", "umount2", "pivot_root", "chroot", "ptrace", "process_vm_readv", "process_vm_writev", "bpf",
    "perf_event_open", "userfaultfd", "unshare", "setns", "io_uring_setup", "io_uring_enter", "keyctl", "add_key",
    "request_key", "kexec_load", "init_module", "finit_module", "delete_module", "reboot", "swapon", "iopl", "ioperm",
    "open_by_handle_at", "name_to_handle_at", "fanotify_init", "acct", "quotactl", "settimeofday", "clock_settime",
    "sethostname", "kcmp", "pidfd_getfd", "modify_ldt", "mbind", "move_pages", "migrate_pages", "syslog",
}  # fmt: skip


def test_unlisted_calls_are_denied() -> None:
    assert (PROFILE["defaultAction"], PROFILE["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)
    assert not NEVER & set(NAMES)


def test_each_call_has_one_rule() -> None:
    assert len(set(NAMES)) == len(NAMES)


def test_sockets_are_unix_or_inet() -> None:
    families = [{a["value"] for a in rule["args"]} for rule in PROFILE["syscalls"] if rule["names"] == ["socket"]]
    assert families == [{1, 2, 10}]


@pytest.mark.skipif(seccomp.load_library() is None, reason="no libseccomp")
def test_libseccomp_compiles_the_list() -> None:
    descriptor = seccomp.open_program()
    assert descriptor is not None
    with open(descriptor, "rb") as file:
        code = file.read()
    assert 0 < len(code) <= 4096 * 8, "the kernel limits filters to 4096 instructions of 8 bytes"
