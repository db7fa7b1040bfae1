"""Stands in for the executable of vLLM: ``serve MODEL …`` answers at once on ``--port``, as ``openai_server`` does.

The folder in the variable STAND_IN says what it does: of the files there, ``broken`` lets it die before it answers and
``dying`` soon after its first answer, ``silent`` lets it never answer, ``slow`` lets it end 3 s after SIGTERM,
``corrupt`` lets it answer the canary otherwise after waking (only of one start if the file says ``once``), and ``leak``
lets it hold as many MiB more as the file says at each sleep. The folder ``replies`` holds its replies. It writes down
there how it was started, and what it has started: a process of its own that detaches itself, as an engine might.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from openai_server import Answer, OpenAIServer, read_replies

WHY = "(EngineCore pid=12) ERROR 11-23 14:05:09 [core.py:99] ValueError: no room for the weights\n"
AFTER = "RuntimeError: Engine core initialization failed. See root cause above.\n"


def main() -> None:
    folder = Path(os.environ["STAND_IN"])
    words = sys.argv[1:]
    if (folder / "broken").exists():
        sys.exit(WHY + AFTER)
    engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    started = {"argv": words, "env": dict(os.environ), "pids": [os.getpid(), engine.pid]}
    part = folder / "part"
    part.write_text(json.dumps(started))
    part.rename(folder / f"started-{len(list(folder.glob('started-*')))}.json")
    if (folder / "slow").exists():
        signal.signal(signal.SIGTERM, lambda *_: end_slowly(folder))
    if (folder / "silent").exists():
        time.sleep(600)
    name = words[words.index("--served-model-name") + 1]
    dev_mode = os.environ.get("VLLM_SERVER_DEV_MODE") == "1"
    server = OpenAIServer(
        read_replies(folder / "replies") if (folder / "replies").exists() else ["a small change"] * 9,
        models={name: 8192},
        port=int(words[words.index("--port") + 1]),
        sleeps="--enable-sleep-mode" in words and dev_mode,
    )
    if (folder / "corrupt").exists():
        server.woken = Answer("!!!!!!!!")
        if "once" in (folder / "corrupt").read_text():
            (folder / "corrupt").unlink()
    if (folder / "leak").exists():
        server.at_sleep = lambda held=[1000.0]: leak(folder, held, engine.pid)
    if (folder / "dying").exists():
        threading.Thread(target=die_once_seen, args=[server]).start()
    server.serve_forever()


def leak(folder: Path, held: list[float], pid: int) -> None:
    """Write what nvidia-smi lists, with more memory at each sleep."""
    (folder / "held").write_text(f"{pid}, {held[0]:.0f}\n")
    held[0] += float((folder / "leak").read_text())


def end_slowly(folder: Path) -> None:
    (folder / "ending").touch()
    time.sleep(3)
    os._exit(0)


def die_once_seen(server: OpenAIServer) -> None:
    """End when the first question has had its answer."""
    server.answered.wait()
    os.write(2, WHY.encode())
    os._exit(1)


if __name__ == "__main__":
    main()
