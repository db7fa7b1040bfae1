"""The programs that the checks run inside a sandbox, to break out of it. They need only the standard library.

A program prints what it could do against the rules, as JSON in its last line.
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

PRINT = r"""
import os, sys
line = b"\x1b[31mred\x1b[0m \x1b]0;title\x07 " + b"x" * 60 + b"\n"
for _ in range(8_000_000 // len(line)):
    os.write(1, line)
os.write(2, b"\x1b[2J\x07the end\n")
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

# Prints forbidden system calls that the filter lets through, and the kernel's filter mode (2: filter).
FORBIDDEN = """
import ctypes, json, os, platform, socket
libc = ctypes.CDLL(None, use_errno=True)
numbers = {"x86_64": dict(ptrace=101, unshare=272, mount=165, bpf=321, io_uring_setup=425, userfaultfd=323, keyctl=250,
                          perf_event_open=298, process_vm_readv=310, setns=308, open_by_handle_at=304, kexec_load=246,
                          init_module=175, pivot_root=155, add_key=248, mbind=237)}.get(platform.machine(), {})
allowed = []
for name, number in numbers.items():
    ctypes.set_errno(0)
    if libc.syscall(number, 0x10000000 if name == "unshare" else 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1:
        allowed.append(name + " " + os.strerror(ctypes.get_errno()))
for family in (socket.AF_VSOCK, socket.AF_ALG, socket.AF_NETLINK, socket.AF_PACKET):
    try:
        socket.socket(family, socket.SOCK_RAW if family != socket.AF_ALG else socket.SOCK_SEQPACKET).close()
        allowed.append(str(family))
    except PermissionError:
        pass
    except OSError as error:
        allowed.append(str(family) + str(error))
status = dict(line.rstrip().split(":", 1) for line in open("/proc/self/status"))
print(json.dumps([allowed, status["Seccomp"].strip()]))
"""

_ATTEMPT = """
import ctypes, fcntl, json, mmap, os, platform, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
found = []
def attempt(what, do):
    try:
        do()
        found.append(what)
    except PermissionError:
        pass
    except OSError as error:
        found.append(what + " " + str(error))
def call(*arguments):
    if libc.syscall(*arguments) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
"""

# The page cache is shared by all jobs: no call may report what is cached, or load and evict pages.
PAGE_CACHE = (
    _ATTEMPT
    + """
numbers = {"x86_64": dict(mincore=27, fadvise64=221, readahead=187, cachestat=451, process_madvise=440,
                          sync_file_range=277, syncfs=306, io_uring_setup=425)}.get(platform.machine(), {})
file, scratch = os.open(sys.executable, os.O_RDONLY), os.memfd_create("scratch")
view = mmap.mmap(file, 4096, access=mmap.ACCESS_READ)
for name, number in numbers.items():
    attempt(name, lambda: call(number, file, 0, 4096, 0, 0, 0))
attempt("preadv2 RWF_NOWAIT", lambda: os.preadv(file, [bytearray(1)], 0, os.RWF_NOWAIT))
attempt("pwritev2 RWF_DSYNC", lambda: os.pwritev(scratch, [b"x"], 0, os.RWF_DSYNC))
for name, advice in dict(WILLNEED=3, COLD=20, PAGEOUT=21, POPULATE_READ=22, POPULATE_WRITE=23).items():
    attempt("madvise " + name, lambda: view.madvise(advice, 0, 4096))
print(json.dumps(found))
"""
)

# Counters of the machine that one job can change exactly, and another can read.
COUNTERS = """
import json, os
def content(path):
    try:
        if os.path.isdir(path):
            return os.listdir(path)
        with open(path, "rb") as file:
            return file.read(1)
    except OSError:
        return b""
print(json.dumps([path for path in os.environ["PLACES"].split() if content(path)]))
"""

# A name that a job looked up is found faster by the next job. Prints the median time of every second name, and of the
# others, in nanoseconds.
LOOK_UP = """
import json, os, statistics, sysconfig, time
folder, token = sysconfig.get_path("stdlib"), os.environ["TOKEN"]
def look(number):
    began = time.perf_counter_ns()
    os.access(f"{folder}/{token}{number}", os.F_OK)
    return time.perf_counter_ns() - began
step = int(os.environ["STEP"])
times = {number: look(number) for number in range(0, 8000, step)}
print(json.dumps([statistics.median(times[n] for n in times if n % 2 == odd) for odd in range(3 - step)]))
"""

# Locks, leases and watches on a file that every job sees. A lock without effect is harmless.
LOCKS = (
    _ATTEMPT
    + """
first, second = (os.open(sys.executable, os.O_RDONLY) for _ in range(2))
read_lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0)
for name, command, argument in (("F_SETLK", fcntl.F_SETLK, read_lock), ("F_SETLKW", fcntl.F_SETLKW, read_lock),
                                ("F_GETLK", fcntl.F_GETLK, read_lock), ("F_OFD_GETLK", 36, read_lock),
                                ("F_OFD_SETLK", 37, read_lock), ("F_OFD_SETLKW", 38, read_lock),
                                ("F_SETLEASE", 1024, fcntl.F_RDLCK), ("F_GETLEASE", 1025, 0), ("F_NOTIFY", 1026, 1)):
    attempt(name, lambda: fcntl.fcntl(first, command, argument))
if libc.inotify_init1(0) != -1:
    found.append("inotify")
try:
    fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    found.append("flock")
except OSError:
    pass
print(json.dumps(found))
"""
)

# Tries to leave a mark on every file outside the job's private file systems.
MARK = """
import fcntl, glob, json, os, stat
marked = []
def attempt(what, do, *arguments):
    try:
        do(*arguments)
        marked.append(what + " of " + repr(arguments[0]))
    except (OSError, ValueError):
        pass
def lock(path):
    with open(path, "rb") as file:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
mounts = [line.split() for line in open("/proc/self/mountinfo")]
own = {"/tmp", "/dev/shm", "/dev/mqueue", "/dev/pts", "/proc"}
own |= {os.environ[name] for name in ("OUT", "SHARED", "OVERNIGHT_OUT", "OVERNIGHT_CHANNEL") if name in os.environ}
points = {line[4] for line in mounts}
# Device files that a container makes itself lie in its own /dev, as do files that they mask.
own_nodes = any(line[3:5] == ["/", "/dev"] and "tmpfs" in line for line in mounts)
device = os.stat("/dev").st_dev if own_nodes else -1
def private(path):
    return os.stat(path).st_dev == device
def visit(path):
    mode = os.lstat(path).st_mode
    if private(path) or stat.S_ISLNK(mode) and os.path.realpath(path).startswith(("/dev/pts/", "/proc/")):
        return
    attempt("times", os.utime, path)
    special = not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))
    if special or path in points:
        attempt("mode", os.chmod, path, 0o777)
        attempt("attribute", os.setxattr, path, "user.mark", b"x")
        attempt("contents", os.truncate, path, 0)
        if not special:
            attempt("lock", lock, path)
for top in ["/", *points]:
    if top in own:
        continue
    for folder, folders, files in os.walk(top):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in own | points]
        for path in [folder, *(os.path.join(folder, name) for name in files)]:
            if path not in own:
                try:
                    visit(path)
                except OSError:
                    pass
for place in glob.glob("/proc/[0-9]*/fd/*"):
    try:
        target = os.readlink(place)
        if private(place):
            continue
    except OSError:
        continue
    if target.startswith("/") and not any(target.startswith(name) for name in own):
        attempt("times through " + place, os.utime, place)
print(json.dumps(marked))
"""
