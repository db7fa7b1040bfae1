"""Programs that use more memory, processes, disk or output than a job may, or leave outputs that are no plain files.

They run inside a sandbox with the standard library alone, and print what they found as JSON in their last line.
"""

EAT_MEMORY = """
import time
held = []
for _ in range(70):
    held.append(b"x" * 10_000_000)
    time.sleep(0.005)
time.sleep(20)
"""

EAT_MEMORY_TOGETHER = """
import os, time
for _ in range(7):
    if os.fork() == 0:
        held = b"x" * 100_000_000
        time.sleep(2)
        os._exit(0)
for _ in range(7):
    os.wait()
"""

FORK = """
import json, os, time
count = 0
for _ in range(200):
    try:
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
    except OSError:
        break
    count += 1
print(json.dumps(count), flush=True)
"""

# With UNLINK, the files have no name any more.
FILL = """
import os, time
block = os.urandom(1 << 20)
written, held = 0, []
try:
    for number in range(64):
        file = open(os.path.join(os.environ[os.environ["WHERE"]], str(number)), "wb", buffering=0)
        if os.environ["UNLINK"]:
            os.unlink(file.name)
        held.append(file)
        for _ in range(8):
            file.write(block)
            time.sleep(0.002)
        written += 8
        print(written, flush=True)
except OSError:
    print(written)
"""

PRINT = r"""
import os, sys
line = b"\x1b[31mred\x1b[0m \x1b]0;title\x07 " + b"x" * 60 + b"\n"
for _ in range(8_000_000 // len(line)):
    os.write(1, line)
os.write(2, b"\x1b[2J\x07the end\n")
"""

OUTPUTS = """
import os
os.chdir(os.environ["OUT"])
for name, text in (("good", "fine"), ("large", "x" * 1000), ("first", "x"), ("unwanted", "x")):
    with open(name, "w") as file:
        file.write(text)
os.symlink("/etc/passwd", "link")
os.link("first", "second")
os.mkfifo("pipe")
os.mkdir("folder")
"""
