# SPDX-License-Identifier: MIT
"""The process that stands in a scratch namespace and runs nft there: a program of its own, run by file name.

It imports nothing of linxd and little else, because it is started for every compilation; not even socket and
signal, which bring enum and selectors and double the time that it takes to begin. It knows no ruleset.

Told by its parent over a packet socket: a command's words, separated by NUL, with descriptors for
standard input, output and error. It answers with the wait status. It ends when its parent closes the socket.
"""

from __future__ import annotations

import _socket as socket
import array
import ctypes
import os
import resource
import sys

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_PDEATHSIG, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 47, 2
CAP_NET_ADMIN = 12
SIGKILL, SIGPIPE, SIGXFSZ = 9, 13, 25
NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
CAPABILITY_VERSION_3 = 0x20080522
OUTPUT = 64 << 20


def main() -> int:
    """``enter.py SOCKET MEMORY CPU``: its descriptor; bytes of address space and seconds of CPU time that a
    command may take."""
    number, memory, cpu = map(int, sys.argv[1:])
    control = socket.socket(fileno=number)
    os.set_inheritable(number, False)
    libc = ctypes.CDLL(None, use_errno=True)
    trouble = _unshare(libc)
    if trouble:
        control.send(b"refused " + str(trouble).encode())
        return 1
    # asked for after the new credentials, which clear it
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL)
    tables = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    links = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)
    fds = array.array("i", (tables.fileno(), links.fileno()))
    control.sendmsg([b"ready"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    tables.close()
    links.close()
    while True:
        words, rights, _, _ = control.recvmsg(1 << 16, socket.CMSG_LEN(3 * 4))
        if not words:
            return 0
        streams = array.array("i", b"".join(data for _, _, data in rights))
        child = os.fork()
        if child == 0:
            _become(libc, words.decode().split("\0"), list(streams), memory, cpu)
        for stream in streams:
            os.close(stream)
        _, status = os.waitpid(child, 0)
        control.send(str(status).encode())


def _unshare(libc: ctypes.CDLL) -> int:
    """A new network namespace, in a user namespace of its own where that can be had: what runs in there has
    no right to anything outside. Returns 0, or the errno."""
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET):
        trouble = ctypes.get_errno()
        # with CAP_SYS_ADMIN it does without
        return trouble if libc.unshare(CLONE_NEWNET) else 0
    # Mapping uid 0 to itself wants CAP_SETFCAP (verify_root_map), which the host's daemon may lack: the
    # ambient capability does for execve(2) what being uid 0 would.
    if _written("/proc/self/setgroups", "deny"):
        _written("/proc/self/gid_map", f"0 {gid} 1")
    _written("/proc/self/uid_map", f"0 {uid} 1")
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    sets[2], sets[5] = sets[1], sets[4]
    libc.capset(header, sets)
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0)
    return 0


def _written(path: str, text: str) -> bool:
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError:
        return False
    return True


def _become(libc: ctypes.CDLL, words: list[str], streams: list[int], memory: int, cpu: int) -> None:
    """Turn into the command. Never returns."""
    try:
        libc.prctl(PR_SET_PDEATHSIG, SIGKILL)
        # which Python has set aside for itself
        for ignored in (SIGPIPE, SIGXFSZ):
            libc.signal(ignored, 0)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT, OUTPUT))
        os.execvp(words[0], words)
    except OSError as error:
        os.write(2, f"{words[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


if __name__ == "__main__":
    # Without tidying up: there is nothing to tidy, and somebody waits.
    os._exit(main())
