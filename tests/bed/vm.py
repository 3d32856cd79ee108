#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Run tests on Debian's own kernel, in a virtual machine without KVM and without a network: those marked
``kinds`` beside no other process, those marked ``podman`` with the package installed, under systemd.

The tree of a machine is made once and kept in ~/.cache/linxd-bed ($LINXD_BED_CACHE); the project goes in on
a second disk, the outcome comes out on a third. In there a kind of link that can't be made fails a test.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("LINXD_BED_CACHE", Path.home() / ".cache" / "linxd-bed"))
MODULES = (
    "bonding bridge dummy veth 8021q macvlan macvtap ipvlan vxlan vrf ifb ipip sit ip6_tunnel ip_gre "
    "ip6_gre wireguard nf_tables br_netfilter"
)
INIT = f"""#!/bin/sh
# The first and only process of the test machine.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 LINXD_ALL_KINDS=1 PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs tmp /tmp; mount -t tmpfs run /run
mount -t devtmpfs dev /dev 2>/dev/null; mkdir -p /dev/pts /dev/shm; mount -t tmpfs shm /dev/shm
ip link set lo up
for module in {MODULES}; do modprobe -q $module; done
mount -t ext4 -o ro /dev/vdb /mnt || echo "no project disk"
cp -r /mnt /tmp/project; cd /tmp/project
/usr/bin/python3 -m pytest -q -rs -p no:cacheprovider $(cat /mnt/.arguments) > /tmp/out 2>&1
echo "exit status $?" >> /tmp/out
size=$(stat -c %s /tmp/out)
{{ printf '%015d\\n' "$size"; cat /tmp/out; }} | dd of=/dev/vdc bs=64k conv=fsync 2>/dev/null
sync; echo o > /proc/sysrq-trigger; sleep 10
"""
SCRIPT = """#!/bin/sh
# Started by linxd-test.service. What is said goes to the console as well, for a machine that does not end.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 LINXD_PODMAN=1
mount -t ext4 -o ro /dev/vdb /mnt || echo "no project disk"
cd /mnt
run() { /usr/bin/python3 -m pytest -v -rs -p no:cacheprovider $(cat .arguments); echo "exit status $?"; }
run 2>&1 | tee /tmp/out > /dev/ttyS0
size=$(stat -c %s /tmp/out)
{ printf '%015d\\n' "$size"; cat /tmp/out; } | dd of=/dev/vdc bs=64k conv=fsync 2>/dev/null
sync; echo o > /proc/sysrq-trigger; sleep 10
"""
SERVICE = """[Unit]
Description=Tests of linxd
After=basic.target dbus.service

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/linxd-test
TimeoutStartSec=infinity
"""
TARGET = """[Unit]
Description=As much as the tests of linxd need
Requires=basic.target
Wants=dbus.service linxd-test.service
AllowIsolate=yes
"""
_UNITS = "/etc/systemd/system"
TOOLS = {"qemu-system-x86_64": "qemu-system-x86", "mmdebstrap": "mmdebstrap", "mkfs.ext4": "e2fsprogs"}
"""What is run here, and the Debian package that has it."""
_UNREACHABLE = re.compile(
    "Temporary failure resolving|Could not (resolve|connect)|Unable to connect|Failed to fetch"
)


@dataclass(frozen=True)
class Machine:
    """What a machine is made of. ``files``: texts by path, what is below sbin is executable; ``boot``: words
    for the kernel; ``marked``: pytest's arguments unless others are given; ``installs``: whether the package
    is built and installed before each boot; ``masked``: units that are of no use in there."""

    suite: str
    packages: tuple[str, ...]
    files: dict[str, str]
    boot: str
    marked: tuple[str, ...]
    installs: bool = False
    masked: tuple[str, ...] = ()


_BOTH = ("linux-image-cloud-amd64", "python3", "python3-pytest", "iproute2", "nftables", "procps", "kmod",
         "util-linux", "mount")  # fmt: skip


def _podman(suite: str) -> Machine:
    return Machine(
        suite,
        (*_BOTH, "systemd", "systemd-sysv", "dbus", "passwd", "python3-dbus-next", "podman", "crun", "runc",
         "catatonit", "uidmap", "busybox-static"),
        {
            "/usr/local/sbin/linxd-test": SCRIPT,
            f"{_UNITS}/linxd-test.service": SERVICE,
            f"{_UNITS}/linxd-test.target": TARGET,
        },
        "systemd.unit=linxd-test.target systemd.show_status=0",
        ("-m", "podman", "tests/containers"),
        installs=True,
        masked=("systemd-hwdb-update.service", "systemd-binfmt.service", "systemd-pstore.service",
                "ldconfig.service", "netavark-dhcp-proxy.socket", "systemd-tmpfiles-clean.timer",
                "apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer", "e2scrub_all.timer",
                "dpkg-db-backup.timer"),
    )  # fmt: skip


MACHINES = {
    "kinds": Machine(
        "bookworm",
        (*_BOTH, "python3-pyroute2", "python3-hypothesis", "python3-jsonschema"),
        {"/sbin/linxd-test-init": INIT},
        "init=/sbin/linxd-test-init",
        ("-m", "kinds", "tests"),
    ),
    "podman": _podman("trixie"),
    "podman12": _podman("bookworm"),
}


def run(*command: str, seconds: float = 600) -> None:
    """Run a command; its output only when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-2000:]
        if "mmdebstrap" in command and _UNREACHABLE.search(said):
            print(f"vm: not run: the machine's packages can't be had: {said.splitlines()[-1]}")
            sys.exit(0)
        sys.exit(f"vm: {' '.join(command)}: {said}")


def base(machine: Machine) -> Path:
    """The directory with the machine's tree or disk, kernel and initial file system; made when it is not
    there yet."""
    parts = (machine.suite, machine.packages, machine.files, machine.masked, machine.installs)
    print_of = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    made = CACHE / f"vm-{machine.suite}-{print_of}"
    if (made / "kernel").exists():
        return made
    print("vm: making the machine (once, about a minute)", flush=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        os.chmod(work, 0o755)
        out = Path(work, "out")
        out.mkdir()
        tree = out / "tree"
        run(
            # What it mounts in the tree, and what it started, goes when it does.
            "unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child",
            "mmdebstrap", "--variant=apt", f"--include={','.join(machine.packages)}",
            "--aptopt=Acquire::Languages none", "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*", machine.suite, str(tree),
            seconds=900,
        )  # fmt: skip
        for path, text in machine.files.items():
            file = Path(f"{tree}{path}")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o755 if "/sbin/" in path else 0o644)
        for unit in machine.masked:
            link = Path(f"{tree}{_UNITS}/{unit}")
            link.unlink(missing_ok=True)
            link.symlink_to("/dev/null")
        shutil.copy(next((tree / "boot").glob("initrd.img-*")), out / "initrd")
        shutil.copy(next((tree / "boot").glob("vmlinuz-*")), out / "kernel")
        if not machine.installs:
            run("mkfs.ext4", "-q", "-F", "-d", str(tree), "-L", "root", str(out / "disk"), "3G")
            shutil.rmtree(tree)
        try:
            out.rename(made)
        except OSError:
            # Somebody else made it meanwhile; theirs is as good.
            if not (made / "kernel").exists():
                raise
    return made


INSTALL = """
set -eu
cd "$1"
mount -t overlay linxd-vm -o "lowerdir=$2/tree,upperdir=$1/upper,workdir=$1/work" "$1/root"
cp "$3" "$1/root/var/tmp/linxd.deb"
chroot "$1/root" dpkg -i /var/tmp/linxd.deb
rm "$1/root/var/tmp/linxd.deb"
mkfs.ext4 -q -F -d "$1/root" -L root "$1/disk" 3G
"""
"""Here, and not in the machine, where it takes ten times as long."""


@contextmanager
def disk_of(machine: Machine, made: Path) -> Iterator[Path]:
    """The disk to boot from, with the package installed where that is asked for."""
    if not machine.installs:
        yield made / "disk"
        return
    # Beside the tree: what is written to /var/tmp or /tmp may be kept in memory.
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        for part in ("upper", "work", "root", "package"):
            Path(work, part).mkdir()
        os.chmod(work, 0o755)
        run(str(ROOT / "packaging/build"), f"{work}/package")
        (package,) = Path(work, "package").glob("linxd_*.deb")
        run("unshare", "--mount", "sh", "-c", INSTALL, "sh", work, str(made), str(package))
        yield Path(work, "disk")


def project_disk(path: Path, arguments: list[str]) -> None:
    """A disk with what git tracks of the project, and what pytest is to be told."""
    with tempfile.TemporaryDirectory() as work:
        names = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True
        ).stdout.split("\0")
        for name in filter(None, names):
            source = ROOT / name
            if source.is_file():
                target = Path(work, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
        Path(work, ".arguments").write_text(" ".join(arguments))
        run("mkfs.ext4", "-q", "-F", "-d", work, str(path), "64M")


def boot(machine: Machine, arguments: list[str], seconds: float) -> tuple[int, str]:
    """Run pytest in the machine. Returns its exit status and what it said."""
    made = base(machine)
    with tempfile.TemporaryDirectory() as work, disk_of(machine, made) as disk:
        project, outcome = Path(work, "project"), Path(work, "outcome")
        project_disk(project, arguments)
        with outcome.open("wb") as file:
            file.truncate(16 << 20)
        console = Path(work, "console")
        command = [
            # It ends with us, however we end.
            "setpriv", "--pdeathsig", "KILL",
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1536",
            "-nic", "none", "-display", "none", "-no-reboot", "-serial", f"file:{console}",
            "-kernel", str(made / "kernel"), "-initrd", str(made / "initrd"),
            "-append", f"console=ttyS0 root=/dev/vda rw quiet panic=-1 {machine.boot}",
        ]  # fmt: skip
        # What the machine writes to its own disk goes to a file without a name.
        for path, kept in ((disk, "on"), (project, "off"), (outcome, "off")):
            command += ["-drive", f"file={path},format=raw,if=virtio,snapshot={kept}"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as machine_process:
            try:
                _, words = machine_process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                return 1, f"not done within {seconds:.0f} s; the console's end:\n{_end(console)}"
            finally:
                machine_process.kill()
        data = outcome.read_bytes()
        try:
            size = int(data[:15])
        except ValueError:
            said = words.decode(errors="replace")[-500:]
            return 1, f"the machine ended without a word; {said}\nthe console's end:\n{_end(console)}"
        text = data[16 : 16 + size].decode(errors="replace")
        status = text.rstrip().rpartition("exit status ")[2]
        return int(status) if status.isdigit() else 1, text


def _end(console: Path) -> str:
    return console.read_text(errors="replace")[-3000:] if console.exists() else ""


def main() -> None:
    """Run, print, and end as pytest did (5: no tests were collected)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800, help="give up after so long (default 1800)")
    parser.add_argument("--machine", choices=sorted(MACHINES), default="kinds", help="default: kinds")
    parser.add_argument(
        "arguments", nargs="*", help="for pytest, without blanks in them (default: the machine's tests)"
    )
    options = parser.parse_args()
    machine = MACHINES[options.machine]
    arguments = options.arguments or list(machine.marked)
    missing = " ".join(package for tool, package in TOOLS.items() if shutil.which(tool) is None)
    if missing:
        sys.exit(f"vm: not run: what is needed is not there; apt-get install {missing}")
    # Ended by timeout(1) or by hand: the machine and its files go, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    began = time.monotonic()
    status, text = boot(machine, arguments, options.seconds)
    print("\n".join(f"vm: {line}" for line in text.splitlines()))
    print(f"vm: {options.machine}: the kernel of Debian's {machine.suite}, {time.monotonic() - began:.0f} s")
    sys.exit(status)


if __name__ == "__main__":
    main()
