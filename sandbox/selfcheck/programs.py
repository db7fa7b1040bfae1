"""The programs of checks that break no rule: files, channels, processes that go on.

They run inside a sandbox with the standard library alone, and print what they found as JSON in their last line.
"""

BEAT = """
import os, sys, time
path = os.path.join(os.environ["SHARED"], sys.argv[1] if len(sys.argv) > 1 else "beat")
number = 0
while True:
    number += 1
    with open(path + ".new", "w") as file:
        file.write(str(number))
    os.replace(path + ".new", path)
    if number == 1:
        print("ready", flush=True)
    time.sleep(0.02)
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

WAIT_FOR_FILE = """
import json, os, time
print("ready", flush=True)
path = os.path.join(os.environ["DATA"], "shard")
for _ in range(3000):
    if os.path.exists(path):
        print(json.dumps(open(path).read()))
        break
    time.sleep(0.01)
"""

DOUBLE = """
import os, time
os.chdir(os.environ["CHANNEL"])
print("ready", flush=True)
for _ in range(3000):
    if os.path.exists("question") and (text := open("question").read()):
        with open("answer", "w") as file:
            file.write(str(2 * int(text)))
        break
    time.sleep(0.01)
"""

DAEMON = """
import os, sys, time
beat = os.path.join(os.environ["SHARED"], "daemon")
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        sys.argv = ["beat", "daemon"]
        exec(os.environ["BEAT"])
    os._exit(0)
os.wait()
while not os.path.exists(beat):
    time.sleep(0.01)
"""
