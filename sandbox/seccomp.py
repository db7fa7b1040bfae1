"""The system calls of seccomp.json as a program for the kernel, by the machine's libseccomp.

Docker reads seccomp.json itself; bubblewrap wants the compiled form.
"""

from __future__ import annotations

import ctypes
import functools
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


@functools.cache
def program() -> bytes | None:
    """The compiled profile; None where there is no libseccomp.

    Raises:
        OSError: libseccomp does not take the profile.
    """
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    profile = json.loads(PROFILE.read_text())
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ERRNO | profile["defaultErrnoRet"])))
    if not context:
        raise OSError("libseccomp gives no filter")
    try:
        for rule in profile["syscalls"]:
            for name in rule["names"]:
                _add(library, context, rule, name)
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: ctypes.c_void_p, rule: Mapping[str, Any], name: str) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:
        return  # not on this machine
    arguments = rule.get("args", ())
    compare = (_Compare * len(arguments))(
        *(_Compare(a["index"], _OPERATORS[a["op"]], a["value"], a.get("valueTwo", 0)) for a in arguments)
    )
    action = _ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else _ERRNO | rule["errnoRet"]
    failed = library.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(arguments), compare)
    if failed:
        raise OSError(-failed, f"libseccomp does not take the rule for {name}")


def _export(library: ctypes.CDLL, context: ctypes.c_void_p) -> bytes:
    descriptor = os.memfd_create("seccomp")
    with os.fdopen(descriptor, "rb") as file:
        failed = library.seccomp_export_bpf(context, descriptor)
        if failed:
            raise OSError(-failed, "libseccomp does not compile the profile")
        file.seek(0)
        return file.read()


def open_program() -> int | None:
    """A descriptor to read the compiled profile from; None where there is no libseccomp."""
    code = program()
    if code is None:
        return None
    descriptor = os.memfd_create("seccomp")
    os.write(descriptor, code)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
