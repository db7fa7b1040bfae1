"""Programs that leave a sign which another job can read: page cache, counters, clock, locks, marks on files.

They run inside a sandbox with the standard library alone, and print what they found as JSON in their last line.
"""

from sandbox.selfcheck.escapes import ATTEMPT

# Calls must be refused: an error for another reason counts as success.
_REFUSED = """
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
    _REFUSED
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
    _REFUSED
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
MARK = (
    ATTEMPT
    + """
import fcntl, stat
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
print(json.dumps(found))
"""
)
