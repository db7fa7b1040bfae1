"""Programs that reach for the host (network, files, other processes, privileges), or that go on after their job.

They run inside a sandbox with the standard library alone, and print what they found as JSON in their last line.
"""

# The start of a program: counts what it could do, with the first argument.
ATTEMPT = """
import glob, json, os, sysconfig
found = []
def attempt(what, do, *given):
    try:
        do(*given)
        found.append(what + " " + repr(given[0]))
    except (OSError, ValueError):
        pass
"""

CONNECT = (
    ATTEMPT
    + """
import socket
def connect(address, family=socket.AF_UNIX):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(2)
        s.connect(address)
attempt("loopback", connect, ("127.0.0.1", int(os.environ["PORT"])), socket.AF_INET)
attempt("vsock", connect, (2, 22), socket.AF_VSOCK)
for address in (chr(0) + os.environ["UNIX"], "/run/docker.sock", "/run/containerd/containerd.sock",
                "/run/dbus/system_bus_socket"):
    attempt("socket", connect, address)
found += [name for _, name in socket.if_nameindex() if name != "lo"] if not os.path.exists("/proc/net/dev") else [
    line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:] if not line.strip().startswith("lo:")]
print(json.dumps(found))
"""
)

WRITE = (
    ATTEMPT
    + """
def write(path):
    with open(path, "a") as file:
        file.write("x")
for place in (os.getcwd(), os.environ["DATA"], sysconfig.get_path("stdlib"), "/usr/bin", "/usr/lib", "/etc", "/dev",
              "/", "/overnight"):
    attempt("new file", write, os.path.join(place, "new"))
    attempt("mode", os.chmod, place, 0o777)
    attempt("new folder", os.mkdir, os.path.join(place, "folder"))
for path in (__file__, os.path.join(os.environ["DATA"], "shard"), os.__file__, "/proc/sys/kernel/core_pattern",
             "/proc/sysrq-trigger", "/sys/kernel/uevent_helper"):
    attempt("change", write, path)
    attempt("remove", os.unlink, path)
    attempt("rename", os.rename, path, path + ".old")
own = ("/tmp", "/dev/shm", "/dev/mqueue", "/proc", os.environ["OUT"], os.environ["SHARED"])
for line in open("/proc/self/mounts"):
    place = line.split()[1]
    if os.path.isdir(place) and place not in own:
        attempt("new file", write, os.path.join(place, "more"))
print(json.dumps(found))
"""
)

READ_MASKED = (
    ATTEMPT
    + """
def look(path):
    with open(path, "rb") as file:
        if not file.read(1):
            raise OSError
for place in {sysconfig.get_path("stdlib"), *glob.glob("/usr/lib*/python3*"), *glob.glob("/usr/local/lib*/python3*")}:
    for name in os.environ["NAMES"].split():
        path = os.path.join(place, name)
        inside = [os.path.join(folder, file) for folder, _, names in os.walk(path) for file in names]
        compiled = glob.glob(os.path.join(place, "__pycache__", name.removesuffix(".py") + ".*"))
        for file in (path, *compiled, *inside):
            attempt("read", look, file)
print(json.dumps(found))
"""
)

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
LOOK = (
    ATTEMPT
    + """
def search(path):
    with open(path, "rb") as file:
        if os.environ["SECRET"][::-1].encode() not in file.read():
            raise OSError
for path in os.environ["PLACES"].splitlines():
    attempt("open", open, path)
for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline"):
    attempt("secret", search, path)
if len(glob.glob("/proc/[0-9]*")) > 5:
    found.append("other processes")
print(json.dumps(found))
"""
)

PRIVILEGES = (
    ATTEMPT
    + """
import ctypes
if os.getuid() == 0 or os.geteuid() == 0:
    found.append("the user id 0")
status = dict(line.rstrip().split(":", 1) for line in open("/proc/self/status"))
found += [name for name in ("CapInh", "CapPrm", "CapEff", "CapAmb") if int(status[name], 16)]
if int(status["NoNewPrivs"]) != 1:
    found.append("new privileges to gain")
attempt("setuid", os.setuid, 0)
attempt("setgroups", os.setgroups, [0])
attempt("chroot", os.chroot, "/tmp")
if ctypes.CDLL(None).mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0:
    found.append("mount")
print(json.dumps(found))
"""
)

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
