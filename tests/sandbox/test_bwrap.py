"""bwrap beyond the contract: system calls, the job's user on the host, interpreters below /tmp."""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

import pytest
from places import ROOT
from sandbox_interface import FORBIDDEN
from sandboxes import working

from sandbox import layout, seccomp
from sandbox.bwrap import BwrapSandbox
from sandbox.selfcheck.bench import Bench
from sandbox.types import SandboxUnavailable


@pytest.mark.skipif(seccomp.load_library() is None, reason="no libseccomp")
def test_unlisted_system_calls_are_denied(bwrap_bench: Bench) -> None:
    assert bwrap_bench.answer(FORBIDDEN) == [[], "2"]


def test_each_job_has_its_unprivileged_user(bwrap_bench: Bench) -> None:
    owners = []
    for name in ("first", "second"):
        bwrap_bench.run(f"import os; open(os.environ['SHARED'] + '/{name}', 'w').close()")
        owners.append((bwrap_bench.shared / name).stat().st_uid)
    if os.geteuid():
        assert owners == [os.geteuid()] * 2
    else:
        assert all(owner >= layout.UNPRIVILEGED for owner in owners)
        assert owners[0] != owners[1] or set(owners) == {layout.UNPRIVILEGED}


@pytest.mark.skipif(not Path("/etc/ld.so.cache").exists(), reason="no cache of shared libraries")
def test_job_reads_the_cache_of_shared_libraries(bwrap_bench: Bench) -> None:
    """Triton asks ldconfig for libcuda.so; without the cache, no kernel compiles."""
    assert bwrap_bench.answer("import json; print(json.dumps(len(open('/etc/ld.so.cache', 'rb').read()) > 0))") is True


def test_missing_bubblewrap_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SandboxUnavailable, match="apt-get install bubblewrap"):
        BwrapSandbox().check()


SCRIPT = """
import sys
from pathlib import Path
from sandbox import make_sandbox
from sandbox.types import Job, Mount
sandbox = make_sandbox("bwrap")
sandbox.check()
code = Path(sys.argv[1])
code.mkdir(mode=0o755)
running = sandbox.start(Job(("{python}", "-c", "import sys; print(sys.prefix)"), {"code": Mount(code)}, "code"))
while running.read(1.0) is not None:
    pass
outcome = running.finish()
print(outcome.exit_code, outcome.log_tail.strip(), sys.prefix)
"""


def test_interpreter_below_tmp_is_visible(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The sandbox mounts its own /tmp, which must not hide the interpreter."""
    working("bwrap")
    folder = tmp_path_factory.mktemp("environment")
    if not folder.is_relative_to("/tmp"):
        pytest.skip("temporary files are not below /tmp")
    for place in (folder, *list(folder.parents)[:-2]):
        place.chmod(0o755)  # as in a checkout; pytest's folders are private
    venv.create(folder / "venv", symlinks=True)
    done = subprocess.run(
        [str(folder / "venv" / "bin" / "python"), "-c", SCRIPT, str(folder / "code")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    status, found, wanted = done.stdout.split()
    assert (status, found) == ("0", wanted)
