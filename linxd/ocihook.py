# SPDX-License-Identifier: MIT
"""The OCI hook: a container's first process is held until its network is as declared, and the container is
refused if it can't be so in time.

It is told of a container by its runtime (crun, runc), names its namespace to the scope by a drop-in, and has
systemd start the scope. It enters nothing and writes nothing to the kernel's network state.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

# A container's start waits for this: what only some calls need is imported there.
if TYPE_CHECKING:
    import subprocess

SCOPE = "org.linxd.scope"
"""The annotation that has the hook run (hooks.d): the name of the container's scope."""
REQUIRE = "org.linxd.require"
"""What the container waits for: ``converged`` (if left out), or ``ready``, which what is pending allows."""
SECONDS = 90.0
"""For all of it; the runtime is told a few more (hooks.d), after which it kills us."""
SETTLING = 10.0
"""Of these, for what is pending when the unit is ready."""
TIDYING = 2.0
"""For others to end what they do with a scope that has ended."""
DIRECTORY = "/run/linxd/netns"
DROP_IN = "90-container.toml"
FOUND = "/run/linxd-netns/+{}"
"""Where linx-netns@.service is told of a namespace that it need not look for. No scope's name begins so."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
"""As `linxd.config.model` has it, which brings all of the configuration along."""
_SYSTEMCTL = "/usr/bin/systemctl"
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""Runtimes hand a hook the environment that hooks.d names, and no other."""
_LONGEST = 1 << 20
_ID = re.compile(r"[A-Za-z0-9_+.-]{1,1024}")
_PROCESS = re.compile(r"/proc/([1-9][0-9]*)/ns/net")
_HELD = "# container "
_POLL = 0.05


class Refusal(Exception):  # noqa: N818 - an answer
    """Why a container may not start. Further lines are details."""


class Container(NamedTuple):
    """What a runtime says of a container (state.md of the OCI's runtime specification). ``pid``: its first
    process, which does not run yet; 0 once it has ended."""

    id: str
    pid: int
    scope: str
    settled: bool
    """Whether all has to be as declared before it runs."""
    bundle: str
    """Where its runtime has its configuration, "" if that is not told."""


def main(arguments: Sequence[str] | None = None) -> int:
    """``oci-hook createRuntime`` or ``oci-hook poststop``, the container's state on stdin; ``oci-hook ended
    SCOPE`` of a scope. Returns the exit code: 0, or 1 for a container that is refused."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    name = "?"
    match words:
        case ["ended", scope] if valid(scope):
            tidy(scope)
            return 0
    what = "container not forgotten" if words == ["poststop"] else "container refused"
    try:
        if words not in (["createRuntime"], ["poststop"]):
            raise Refusal("is to be called as `oci-hook createRuntime' or `oci-hook poststop'")
        container = read(sys.stdin.buffer.read(_LONGEST + 1))
        name = container.scope
        if not _is_root():
            raise Refusal("only root's containers can have their network from linxd")
        if words == ["poststop"]:
            forget(container)
        else:
            hold(container, time.monotonic() + SECONDS)
    except Refusal as refusal:
        text, *details = str(refusal).splitlines()
        _say(name, f"{what}: {text}", details)
        return 1
    except Exception as error:
        _say(name, f"{what}: {type(error).__name__}: {error}", ())
        return 1
    return 0


def _is_root() -> bool:
    """Whether we are the machine's root, and not what a user's podman calls so in its namespace."""
    with open("/proc/self/uid_map") as file:
        return os.geteuid() == 0 and file.read().split() == ["0", "0", "4294967295"]


def _say(name: str, text: str, details: Sequence[str]) -> None:
    from linxd.log import ERROR, news
    from linxd.systemd.journal import Journal

    entry = news(name, text, priority=ERROR, details=details)
    print(f"linxd: {entry.text}", *(f"  {line}" for line in entry.details), sep="\n", file=sys.stderr)
    # Whoever reads the log of the scope's unit finds it there.
    unit = {"OBJECT_SYSTEMD_UNIT": unit_name(name)} if valid(name) else {}
    sink = Journal()
    sink(type(entry)(entry.text, entry.details, {**entry.fields, **unit}, entry.priority))
    sink.close()


def read(data: bytes) -> Container:
    """A container out of its state. Raises Refusal."""
    try:
        state = json.loads(data) if len(data) <= _LONGEST else None
    except ValueError:
        state = None
    match state:
        case {"id": str(identity), "annotations": {**annotations}, **rest} if _ID.fullmatch(identity):
            pid = rest.get("pid") or 0
            bundle = rest.get("bundle")
        case _:
            raise Refusal("what the runtime says of the container can't be read")
    name = annotations.get(SCOPE)
    if not isinstance(name, str) or not valid(name):
        raise Refusal(f"annotation {SCOPE}: {name!r} is no scope's name: letters, digits, _, . and - only")
    require = annotations.get(REQUIRE, "converged")
    if require not in ("converged", "ready"):
        raise Refusal(f"annotation {REQUIRE} is {require!r}, want converged or ready")
    if not isinstance(pid, int) or pid < 0:
        raise Refusal("the runtime names no process of the container")
    return Container(identity, pid, name, require == "converged", bundle if isinstance(bundle, str) else "")


def valid(name: str) -> bool:
    """Whether a container's scope can be called so."""
    return NAME.fullmatch(name) is not None and name != "host"


def unit_name(scope: str) -> str:
    """The unit that keeps a scope."""
    return f"linx-reconcile@{scope}.service"


# -- before it runs -----------------------------------------------------------------------------------------


def hold(container: Container, end: float) -> None:
    """Return when the container's network is there. Raises Refusal; ``end`` is by the monotonic clock."""
    name = container.scope
    cookie = _cookie(container.pid)
    with _directory(name, end) as directory:
        serving = _holder(name, cookie)
        others, rest = _read(directory) if serving else ((), "")
        if not others:
            rest = rest_for(place_of(_keeper(container) or container.pid))
        # Others of a pod may be there before and after; with whoever ends last it goes.
        _write(directory, text_for((*others, container.id), rest))
        try:
            if not serving:
                _start(container, end)
            if container.settled:
                _settle(name, cookie, min(end, time.monotonic() + SETTLING))
        except BaseException:
            if not serving:
                _undo(name, directory)
            else:
                _leave(container, directory)
            raise


def _keeper(container: Container) -> int | None:
    """The process whose namespace the container was told to join: in a pod the one that does nothing else,
    and lives as long as the pod. None if it has its own."""
    from linxd.culprit import netns_of

    try:
        with open(os.path.join(container.bundle, "config.json"), "rb") as file:
            config = json.load(file)
    except (OSError, ValueError):
        return None
    match config:
        case {"linux": {"namespaces": [*namespaces]}}:
            for one in namespaces:
                match one:
                    case {"type": "network", "path": str(path)} if found := _PROCESS.fullmatch(path):
                        # It may have ended, and its number may be somebody else's.
                        if netns_of(f"/proc/{found[1]}") == netns_of(f"/proc/{container.pid}"):
                            return int(found[1])
    return None


def _cookie(pid: int) -> int:
    from linxd.netns import cookie_of

    try:
        descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Refusal(f"process {pid} of the container: {error.strerror}") from None
    try:
        cookie = cookie_of(descriptor)
    finally:
        os.close(descriptor)
    if cookie == cookie_of():
        raise Refusal("the container has no network namespace of its own; run it with --network none")
    return cookie


def _holder(name: str, cookie: int) -> bool:
    """Whether the scope is served in this namespace already, as in a pod it is for all but the first. Raises
    Refusal if the scope has another container, or the namespace another scope."""
    from linxd import statedir

    for _, scope, served in statedir.holders(statedir.ROOT):
        if served == cookie and scope != name:
            raise Refusal(f"its network namespace is kept as scope {scope} already")
        if served == cookie:
            return True
        if scope == name:
            word = statedir.read_status(statedir.ROOT, name) or {}
            if word.get("cookie") == served and _lives(str(word.get("netns"))):
                raise Refusal(
                    f"the scope has another network namespace, {word['netns']}, as long as that lives"
                )
    return False


def _lives(netns: str) -> bool:
    from linxd.config.model import NetnsRef
    from linxd.netns import NotThere, Refused, locate

    kind, _, value = ("path", "", netns) if netns.startswith("/") else netns.partition(":")
    try:
        locate(NetnsRef(kind, value))
    except (NotThere, Refused, OSError, ValueError):
        return False
    return True


def place_of(pid: int) -> str:
    """How a container's namespace is found by the process it begins with: by its unit, which keeps its name
    for as long as there is a container, or else by that process.

    A unit counts only if no process of it is in a third namespace: a login session may have any number of
    containers in it.
    """
    from linxd.culprit import cgroup_paths, netns_of, unit_of
    from linxd.netns import processes, unit_cgroup

    number = netns_of(f"/proc/{pid}")
    try:
        with open(f"/proc/{pid}/cgroup", "rb") as file:
            unit = unit_of(cgroup_paths(file.read()))
    except OSError:
        unit = None
    cgroup = unit_cgroup(unit) if unit is not None else None
    if unit is not None and cgroup is not None:
        inside = {netns_of(f"/proc/{one}") for one in processes(cgroup)}
        if number in inside and inside <= {number, netns_of("/proc/self"), None}:
            return f"unit:{unit}"
    return f"pid:{pid}"


def rest_for(place: str) -> str:
    """What the drop-in says of where the namespace is."""
    return f"[scope]\nnetns = {json.dumps(place)}\n"


def text_for(containers: Sequence[str], rest: str) -> str:
    """The drop-in of containers in one namespace."""
    return f"{_HELD}{' '.join(containers)}\n{rest}"


def _read(directory: int) -> tuple[tuple[str, ...], str]:
    """The containers that the drop-in names, and the rest of it."""
    try:
        with open(os.open(DROP_IN, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)) as file:
            first, _, rest = file.read().partition("\n")
    except OSError:
        return (), ""
    return (tuple(first.removeprefix(_HELD).split()), rest) if first.startswith(_HELD) else ((), "")


def _start(container: Container, end: float) -> None:
    name = container.scope
    unit = unit_name(name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(FOUND.format(name))
    os.symlink(f"/proc/{container.pid}/ns/net", FOUND.format(name))
    family = (unit, f"linx-netns@{name}.service", f"linx-host@{name}.socket")
    # Containers that are started again and again are no daemon that crashes again and again.
    _systemctl("reset-failed", *family, end=end)
    # What still runs there serves a namespace that is about to end: to start it would do nothing.
    done = _systemctl("restart", unit, end=end)
    if done is None:
        raise Refusal(f"{unit} is not ready after {SECONDS:.0f} s")
    if done.returncode:
        raise Refusal("\n".join((f"{unit} does not start", *_why(name, done.stderr))))


def _why(name: str, said: str) -> Iterator[str]:
    from linxd.config import ConfigError, load

    try:
        load(name)
    except ConfigError as error:
        yield from str(error).splitlines()
    except OSError as error:
        yield str(error)
    else:
        yield from said.strip().splitlines()[:1]
        yield f"journalctl -u {unit_name(name)}"


def _settle(name: str, cookie: int, end: float) -> None:
    """Wait until all is as declared. Raises Refusal."""
    from linxd import statedir

    while True:
        word: Mapping[str, Any] = statedir.read_status(statedir.ROOT, name) or {}
        if word.get("cookie") == cookie and word.get("state") == "converged":
            return
        if time.monotonic() >= end:
            lines = [str(one.get("text")) for one in word.get("conditions", ())]
            raise Refusal("\n".join((f"its network is {word.get('state', 'not known')}", *lines)))
        time.sleep(_POLL)


def _undo(name: str, directory: int) -> None:
    """Leave nothing of a container that is not to be."""
    for path, where in ((DROP_IN, directory), (FOUND.format(name), None)):
        with contextlib.suppress(OSError):
            os.unlink(path, dir_fd=where)
    unit = unit_name(name)
    end = time.monotonic() + SETTLING
    _systemctl("stop", unit, f"linx-netns@{name}.service", end=end)
    _systemctl("reset-failed", unit, f"linx-netns@{name}.service", end=end)


def _systemctl(*words: str, end: float) -> subprocess.CompletedProcess[str] | None:
    """None if it has not ended by then."""
    import subprocess

    try:
        return subprocess.run(
            (_SYSTEMCTL, *words),
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=max(0.1, end - time.monotonic()),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None


# -- after it has ended -------------------------------------------------------------------------------------


def forget(container: Container) -> None:
    """Remove the drop-in with the last of its containers. The scope has ended, or is about to: its daemon
    watches the namespace by itself."""
    if not os.path.exists(os.path.join(DIRECTORY, f"{container.scope}.toml.d", DROP_IN)):
        return
    with _directory(container.scope, time.monotonic() + SETTLING) as directory:
        _leave(container, directory)


def tidy(name: str) -> None:
    """Remove a drop-in whose containers have ended without their runtime's saying so, as it does not of one
    that is killed before it runs. Whoever works in there meanwhile sees to it."""
    with contextlib.suppress(Refusal), _directory(name, time.monotonic() + TIDYING) as directory:
        held, rest = _read(directory)
        place = re.search(r'^netns = "(.*)"$', rest, re.M)
        if held and place is not None and not _lives(place[1]):
            os.unlink(DROP_IN, dir_fd=directory)


def _leave(container: Container, directory: int) -> None:
    held, rest = _read(directory)
    others = [one for one in held if one != container.id]
    if others:
        _write(directory, text_for(others, rest))
    elif held:
        os.unlink(DROP_IN, dir_fd=directory)


# -- the drop-in --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _directory(name: str, end: float) -> Iterator[int]:
    """The directory of the scope's drop-ins, which nobody else of us works in meanwhile; removed at the end
    if it is empty. Raises Refusal."""
    path = os.path.join(DIRECTORY, f"{name}.toml.d")
    while True:
        with contextlib.suppress(FileExistsError):
            os.makedirs(path)
            # Whatever the umask is: the scope's daemon reads what is in there.
            os.chmod(path, 0o755)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            if _locked(descriptor) and _is(descriptor, path):
                break
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if time.monotonic() >= end:
            raise Refusal("another container is being started with this scope")
        time.sleep(_POLL)
    try:
        yield descriptor
    finally:
        # Somebody who wants the lock finds out, and makes it again.
        with contextlib.suppress(OSError):
            os.rmdir(path)
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _write(directory: int, text: str) -> None:
    fresh = f".{DROP_IN}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(fresh, flags, 0o644, dir_fd=directory)
    with open(descriptor, "w") as file:
        # What is in there is no secret, and has to be read by the scope's daemon, whatever the umask is.
        os.fchmod(descriptor, 0o644)
        file.write(text)
    os.rename(fresh, DROP_IN, src_dir_fd=directory, dst_dir_fd=directory)


if __name__ == "__main__":
    sys.exit(main())
