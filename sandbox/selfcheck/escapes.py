"""Programs that reach for the host (network, files, other processes, privileges), or that go on after their job.

They run inside a sandbox with the standard library alone, and print what they found as JSON in their last line.
"""

CONNECT = """
import json, os, socket
reached = []
def connect(what, family, address):
    try:
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.settimeout(2)
            s.connect(address)
        reached.append(what)
    except OSError:
        pass
connect("loopback", socket.AF_INET, ("127.0.0.1", int(os.environ["PORT"])))
connect("abstract socket", socket.AF_UNIX, chr(0) + os.environ["UNIX"])
connect("vsock", socket.AF_VSOCK, (2, 22))
for path in ("/run/docker.sock", "/run/containerd/containerd.sock", "/run/dbus/system_bus_socket"):
    connect(path, socket.AF_UNIX, path)
reached += [name for _, name in socket.if_nameindex() if name != "lo"] if not os.path.exists("/proc/net/dev") else [
    line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:] if not line.strip().startswith("lo:")]
print(json.dumps(reached))
"""

WRITE = """
import json, os, sysconfig
changed = []
def attempt(what, do):
    try:
        do()
        changed.append(what)
    except OSError:
        pass
def write(path):
    with open(path, "a") as file:
        file.write("x")
for place in (os.getcwd(), os.environ["DATA"], sysconfig.get_path("stdlib"), "/usr/bin", "/usr/lib", "/etc", "/dev",
              "/", "/overnight"):
    attempt("new file in " + place, lambda: write(os.path.join(place, "new")))
    attempt("mode of " + place, lambda: os.chmod(place, 0o777))
    attempt("folder in " + place, lambda: os.mkdir(os.path.join(place, "folder")))
for path in (__file__, os.path.join(os.environ["DATA"], "shard"), os.__file__, "/proc/sys/kernel/core_pattern",
             "/proc/sysrq-trigger", "/sys/kernel/uevent_helper"):
    attempt("change " + path, lambda: write(path))
    attempt("remove " + path, lambda: os.unlink(path))
    attempt("rename " + path, lambda: os.rename(path, path + ".old"))
own = ("/tmp", "/dev/shm", "/dev/mqueue", "/proc", os.environ["OUT"], os.environ["SHARED"])
for line in open("/proc/self/mounts"):
    place = line.split()[1]
    if os.path.isdir(place) and place not in own:
        attempt("new file in " + place, lambda: write(os.path.join(place, "more")))
print(json.dumps(changed))
"""

READ_MASKED = """
import glob, json, os, sysconfig
read = []
def look(path):
    try:
        with open(path, "rb") as file:
            if file.read(1):
                read.append(path)
    except OSError:
        pass
for place in {sysconfig.get_path("stdlib"), *glob.glob("/usr/lib*/python3*"), *glob.glob("/usr/local/lib*/python3*")}:
    for name in os.environ["NAMES"].split():
        path = os.path.join(place, name)
        look(path)
        for compiled in glob.glob(os.path.join(place, "__pycache__", name.removesuffix(".py") + ".*")):
            look(compiled)
        for folder, _, names in os.walk(path):
            for file in names:
                look(os.path.join(folder, file))
print(json.dumps(read))
"""

# Sources and documentation of standard libraries; modules must still work.
READ_SOURCES = """
import argparse, json, os, string, sysconfig
read = [name for name in ("__doc__",) if argparse.__doc__ or string.Template.__doc__]
for top in (sysconfig.get_path("stdlib"), "/usr/lib", "/usr/local/lib"):
    for folder, folders, files in os.walk(top):
        folders[:] = [name for name in folders if name not in ("site-packages", "dist-packages")]
        known = [name for name in files if name.startswith(("argparse.", "test_argparse."))]
        read += [f"{folder}/{name}" for name in known if name != "argparse.pyc"]
print(json.dumps(read))
"""

# Its own environment holds the secret reversed, so the secret itself can only come from elsewhere.
LOOK = """
import glob, json, os
seen = []
secret = os.environ["SECRET"][::-1].encode()
for path in os.environ["PLACES"].splitlines():
    try:
        open(path).close()
        seen.append(path)
    except OSError:
        pass
for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline"):
    try:
        with open(path, "rb") as file:
            if secret in file.read():
                seen.append(path)
    except OSError:
        pass
if len(glob.glob("/proc/[0-9]*")) > 5:
    seen.append("other processes")
print(json.dumps(seen))
"""

PRIVILEGES = """
import ctypes, json, os
had = []
if os.getuid() == 0 or os.geteuid() == 0:
    had.append("the user id 0")
status = dict(line.rstrip().split(":", 1) for line in open("/proc/self/status"))
for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
    if int(status[name], 16):
        had.append(name + status[name])
if int(status["NoNewPrivs"]) != 1:
    had.append("new privileges to gain")
for name, do in (("setuid", lambda: os.setuid(0)), ("setgroups", lambda: os.setgroups([0])),
                 ("chroot", lambda: os.chroot("/tmp"))):
    try:
        do()
        had.append(name)
    except OSError:
        pass
libc = ctypes.CDLL(None)
if libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0:
    had.append("mount")
print(json.dumps(had))
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
