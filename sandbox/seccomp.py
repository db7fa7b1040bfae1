"""Compiles the system call filter seccomp.json with libseccomp, for bubblewrap. Docker reads seccomp.json itself.

Covers: system calls by number, and by arguments that are numbers. Does not cover: what arguments point to, such as
paths, and descriptors. As in Docker, several conditions on the same argument of a rule are alternatives.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROFILE = Path(__file__).with_name("seccomp.json")

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_OPERATORS = {"SCMP_CMP_NE": 1, "SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}


class _Compare(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def load_library() -> ctypes.CDLL | None:
    """libseccomp; None if it is not installed."""
    try:
        return ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None


def open_program() -> int | None:
    """A descriptor from which the compiled filter can be read; None without libseccomp.

    Raises:
        OSError: libseccomp rejects the profile.
    """
    if (library := load_library()) is None:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    profile = json.loads(PROFILE.read_text())
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ERRNO | profile["defaultErrnoRet"])))
    if not context:
        raise OSError("libseccomp cannot make a filter")
    descriptor = os.memfd_create("seccomp")
    try:
        for rule in profile["syscalls"]:
            for name in rule["names"]:
                _add(library, context, rule, name)
        if failed := library.seccomp_export_bpf(context, descriptor):
            raise OSError(-failed, "libseccomp cannot compile the profile")
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    finally:
        library.seccomp_release(context)
    return descriptor


def _add(library: ctypes.CDLL, context: ctypes.c_void_p, rule: Mapping[str, Any], name: str) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:
        return  # another architecture
    action = _ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else _ERRNO | rule["errnoRet"]
    conditions = [
        _Compare(a["index"], _OPERATORS[a["op"]], a["value"], a.get("valueTwo", 0)) for a in rule.get("args", ())
    ]
    alternatives = len({condition.arg for condition in conditions}) < len(conditions)
    for group in [[condition] for condition in conditions] if alternatives else [conditions]:
        array = (_Compare * len(group))(*group)
        failed = library.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(group), array)
        if failed:
            raise OSError(-failed, f"libseccomp rejects the rule for {name}")
