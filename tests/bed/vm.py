#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Run the tests marked ``kinds`` on Debian's own kernel, in a virtual machine without KVM and without a
network.

The tree of the machine is made once and kept in ~/.cache/linxd-bed ($LINXD_BED_CACHE); the project goes in
on a second disk, the outcome comes out on a third. In there a kind of link that can't be made fails a test.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("LINXD_BED_CACHE", Path.home() / ".cache" / "linxd-bed"))
SUITE = "bookworm"
PACKAGES = (
    "linux-image-cloud-amd64", "python3", "python3-pyroute2", "python3-pytest", "python3-hypothesis",
    "iproute2", "nftables", "procps", "kmod", "python3-jsonschema", "util-linux", "mount",
)  # fmt: skip
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
TOOLS = {"qemu-system-x86_64": "qemu-system-x86", "mmdebstrap": "mmdebstrap", "mkfs.ext4": "e2fsprogs"}
"""What is run here, and the Debian package that has it."""


def run(*command: str, seconds: float = 600) -> None:
    """Run a command; its output only when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        sys.exit(f"vm: {' '.join(command)}: {done.stderr.strip()[-2000:]}")


def base() -> Path:
    """The directory with the machine's disk, kernel and initial file system; made when it is not there
    yet."""
    print_of = hashlib.sha256(repr((SUITE, PACKAGES, INIT)).encode()).hexdigest()[:12]
    made = CACHE / f"vm-{SUITE}-{print_of}"
    if (made / "disk").exists():
        return made
    print("vm: making the machine (once, about a minute)", flush=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        tree = Path(work, "tree")
        os.chmod(work, 0o755)
        run(
            # What it mounts in the tree, and what it started, goes when it does.
            "unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child",
            "mmdebstrap", "--variant=apt", f"--include={','.join(PACKAGES)}",
            "--aptopt=Acquire::Languages none", "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*", SUITE, str(tree),
            seconds=900,
        )  # fmt: skip
        init = tree / "sbin" / "linxd-test-init"
        init.write_text(INIT)
        init.chmod(0o755)
        out = Path(work, "out")
        out.mkdir()
        shutil.copy(next((tree / "boot").glob("vmlinuz-*")), out / "kernel")
        shutil.copy(next((tree / "boot").glob("initrd.img-*")), out / "initrd")
        run("mkfs.ext4", "-q", "-F", "-d", str(tree), "-L", "root", str(out / "disk"), "3G")
        try:
            out.rename(made)
        except OSError:
            # Somebody else made it meanwhile; theirs is as good.
            if not (made / "disk").exists():
                raise
    return made


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


def boot(arguments: list[str], seconds: float) -> tuple[int, str]:
    """Run pytest in the machine. Returns its exit status and what it said."""
    machine = base()
    with tempfile.TemporaryDirectory() as work:
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
            "-kernel", str(machine / "kernel"), "-initrd", str(machine / "initrd"),
            "-append", "console=ttyS0 root=/dev/vda rw quiet panic=-1 init=/sbin/linxd-test-init",
        ]  # fmt: skip
        # What the machine writes to its own disk goes to a file without a name.
        for path, kept in ((machine / "disk", "on"), (project, "off"), (outcome, "off")):
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
    parser.add_argument("--seconds", type=float, default=900, help="give up after so long (default 900)")
    parser.add_argument("arguments", nargs="*", help="for pytest (default: -m kinds tests)")
    options = parser.parse_args()
    arguments = options.arguments or ["-m", "kinds", "tests"]
    missing = " ".join(package for tool, package in TOOLS.items() if shutil.which(tool) is None)
    if missing:
        sys.exit(f"vm: not run: what is needed is not there; apt-get install {missing}")
    # Ended by timeout(1) or by hand: the machine and its files go, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    began = time.monotonic()
    status, text = boot(arguments, options.seconds)
    print("\n".join(f"vm: {line}" for line in text.splitlines()))
    print(f"vm: Debian's kernel, {time.monotonic() - began:.0f} s")
    sys.exit(status)


if __name__ == "__main__":
    main()
