"""A checkout and its environment below /tmp: the sandbox's own /tmp must not hide them."""

from __future__ import annotations

import subprocess
import sys
import venv

import pytest
from places import ROOT

from sandbox import make_sandbox
from sandbox.types import SandboxUnavailable

SCRIPT = """
import sys
from pathlib import Path
from sandbox import make_sandbox
from sandbox.types import Job, Mount
place = make_sandbox("bwrap")
place.check()
code = Path(sys.argv[1])
code.mkdir(mode=0o755)
running = place.start(Job(("{python}", "-c", "import sys; print(sys.prefix)"), {"code": Mount(code)}, "code"))
while running.read(1.0) is not None:
    pass
outcome = running.finish()
print(outcome.exit_code, outcome.log_tail.strip(), sys.prefix)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is for Linux")
def test_an_interpreter_below_tmp_is_found(tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        make_sandbox("bwrap").check()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("environment")
    if not folder.is_relative_to("/tmp"):
        pytest.skip("temporary files lie elsewhere")
    for place in (folder, *list(folder.parents)[:-2]):
        place.chmod(0o755)  # as a checkout has it; pytest's own folders are closed
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
