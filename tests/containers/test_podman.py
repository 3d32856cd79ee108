# SPDX-License-Identifier: MIT
"""Containers of podman's under a real systemd, with linxd installed: they live in the machine that
`tests/bed/vm.py --machine podman` boots, and are started by the very commands of docs/podman.md.

What a first process saw is what it printed; what is there afterwards is asked of the machine.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.podman,
    pytest.mark.skipif(
        not os.environ.get("LINXD_PODMAN"), reason="for a machine of its own, which `make vm` boots"
    ),
]
PAGE = Path(__file__).resolve().parents[2] / "docs/podman.md"
PATIENCE = 120.0
LIVES = int(os.environ.get("LINXD_LIVES", "10"))
"""Containers that have come and gone with a network, at least, before it is asked what they left."""
KILLS = int(os.environ.get("LINXD_KILLS", "3"))
SEED = int(os.environ.get("LINXD_SEED", "1"))
ENDED = "inactive"
RUNTIMES = pytest.mark.parametrize("runtime", ["crun", "runc"], indirect=True)
_lives = itertools.count()


# -- the page -----------------------------------------------------------------------------------------------


def commands(heading: str, number: int = 0) -> str:
    """One of the blocks of commands below a heading of the page."""
    return re.findall(r"^```sh\n(.*?)^```$", _section(heading), re.M | re.S)[number]


def files(heading: str) -> None:
    """Write the files that stand below a heading where their first lines say."""
    for text in re.findall(r"^```(?:toml|ini)\n(.*?)^```$", _section(heading), re.M | re.S):
        path = Path(text.partition("\n")[0].removeprefix("# "))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _section(heading: str) -> str:
    return PAGE.read_text().split(f"\n## {heading}\n")[1].partition("\n## ")[0]


# -- the machine --------------------------------------------------------------------------------------------


def run(script: str) -> subprocess.CompletedProcess[str]:
    """What a shell makes of it."""
    return subprocess.run(
        ["sh", "-euc", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def do(script: str) -> str:
    """The same, which must succeed; what it prints."""
    done = run(script)
    assert done.returncode == 0, f"{script}\n{done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def eventually(look: Callable[[], object]) -> None:
    """Look until it is so; what has not come to be after a long while won't."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            look()
            return
        except AssertionError:
            if time.monotonic() > end:
                raise
        time.sleep(0.2)


def has(text: str, part: str) -> None:
    assert part in text


def state(unit: str) -> str:
    return run(f"systemctl show -P ActiveState {unit}").stdout.strip()


def says(name: str) -> str:
    return do(f"systemctl show -P StatusText linx-reconcile@{name}.service")


def is_up(name: str) -> None:
    """Fails unless the scope runs and all is as declared."""
    assert state(f"linx-reconcile@{name}.service") == "active"
    assert says(name).startswith("converged: ")


def is_gone(name: str) -> None:
    """Fails unless nothing is left of a scope: neither unit nor process nor file nor link."""
    assert state(f"linx-reconcile@{name}.service") == ENDED
    assert state(f"linx-netns@{name}.service") == ENDED
    assert state(f"linx-host@{name}.socket") == ENDED
    assert run(f"pgrep -f 'scope {name}$'").stdout == ""
    assert not os.path.lexists(f"/run/linxd-netns/{name}")
    assert not os.path.lexists(f"/run/linxd-state/{name}/control")
    assert f"{name}-eth0" not in do("ip -o link")


def is_forgotten(name: str) -> None:
    """The same for a scope that the hook was called for."""
    is_gone(name)
    assert not os.path.lexists(f"/run/linxd/netns/{name}.toml.d")


def inside(name: str, command: str) -> str:
    """A command of the machine's in a container's network."""
    return do(f"nsenter -t $(podman inspect -f '{{{{.State.Pid}}}}' {name}) -n {command}")


def lived() -> None:
    next(_lives)


def _left() -> dict[str, list[str]]:
    return {
        "links": sorted(re.findall(r"^\d+: ([^:@]+)", do("ip -o link"), re.M)),
        "namespaces": do("lsns -n -t net -o NS").split(),
        "mounts": sorted(do("findmnt -rno TARGET").split()),
        "names": sorted(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else [],
        "processes": do("pgrep -fa '[l]inxd --scope|[n]etns-link|[c]onmon|[o]ci-hook' || true").splitlines(),
        "units": sorted(re.findall(r"\S*(?:linx|libpod)\S*@?\S*\.(?:service|socket|scope)",
                                   do("systemctl list-units --plain --no-legend"))),
        "failed": do("systemctl list-units --failed --plain --no-legend").splitlines(),
        "files": sorted(os.listdir("/run/linxd/netns") + os.listdir("/run/linxd-netns")),
    }  # fmt: skip


@pytest.fixture(scope="module")
def host() -> Iterator[dict[str, list[str]]]:
    """The host as the page has it, with two links where a network would be plugged in; what there was then
    of all that containers could leave behind."""
    do("ip link add eno1 up type dummy; ip link add eno2 up type dummy")
    # The first name makes /run/netns a mount point for good.
    do("ip netns add first; ip netns delete first")
    do(commands("An image"))
    files("Declare")
    do(commands("Declare"))
    eventually(lambda: has(do("ip -o address show dev br0"), "10.1.0.1/24"))
    yield _left()
    run("podman rm --force --all --time 0; systemctl stop linxd.service")


@pytest.fixture
def runtime(request: pytest.FixtureRequest, host: object) -> Iterator[str]:
    """What podman runs containers with."""
    choice = Path("/etc/containers/containers.conf.d/runtime.conf")
    choice.parent.mkdir(parents=True, exist_ok=True)
    choice.write_text(f'[engine]\nruntime = "{request.param}"\n')
    yield request.param
    choice.unlink()


@pytest.fixture(autouse=True)
def _no_container_is_left() -> Iterator[None]:
    yield
    run("podman rm --force --all --time 0")


# -- what is shown ------------------------------------------------------------------------------------------


@RUNTIMES
def test_the_first_process_sees_the_whole_network(runtime: str) -> None:
    seen = do(commands("Run", 0))
    lived()
    assert re.search(r"eth0 +inet 10\.1\.0\.2/24 ", seen), seen
    assert re.search(r"eth0 +inet6 fd00:1::2/64 ", seen), seen
    assert "default via 10.1.0.1" in seen
    eventually(lambda: is_forgotten("web"))


@RUNTIMES
def test_the_unit_runs_exactly_while_the_container_does(runtime: str) -> None:
    do(commands("Run", 1).replace("systemctl status", "systemctl --no-pager status"))
    assert do("podman inspect -f '{{.OCIRuntime}}' web").strip() == runtime
    is_up("web")
    assert "tcp dport 80 accept" in inside("web", "nft list ruleset")
    assert "state UP" in do("ip -o link show web-eth0 master br0")
    again, status, remove = commands("Run", 2).splitlines()
    do(again)
    lived()
    is_up("web")
    do(status)
    assert "10.1.0.2/24" in inside("web", "ip -o address show dev eth0")
    assert "converged" in do(commands("What is refused"))
    do(remove)
    lived()
    eventually(lambda: is_forgotten("web"))


def test_however_it_ends_it_can_be_started_again(host: object) -> None:
    do("podman create --name web --network none --annotation org.linxd.scope=web box sleep infinity")
    for end in (
        "podman stop --time 0 web",
        "podman kill web",
        "kill -KILL $(podman inspect -f '{{.State.Pid}}' web)",
    ):
        do("podman start web")
        is_up("web")
        do(end)
        lived()
        eventually(lambda: is_forgotten("web"))


@RUNTIMES
def test_it_starts_along_with_a_container_that_is_not_held(runtime: str) -> None:
    files("Without the hook")
    do(commands("Without the hook"))
    eventually(lambda: is_up("db"))
    assert "10.1.0.3/24" in inside("db", "ip -o address show dev eth0")
    do("kill -KILL $(podman inspect -f '{{.State.Pid}}' db)")
    lived()
    eventually(lambda: is_gone("db"))
    do("podman rm db; rm -r /run/linxd/netns/db.toml.d /etc/linxd/netns/db.toml")


@RUNTIMES
def test_in_a_namespace_that_outlives_it_its_network_is_looked_after_while_it_lives(runtime: str) -> None:
    """Nothing but the properties of its scope tells when that is."""
    unit = "linx-reconcile@held.service"
    Path("/etc/linxd/netns/held.toml").write_text('[link.lo]\nup = true\naddresses = ["192.0.2.1/32"]\n')
    annotations = "".join(
        f" --annotation \"org.systemd.property.{word}=['{unit}']\"" for word in ("Wants", "PropagatesStopTo")
    )
    do("ip netns add held")
    do(f"podman create --name held --network ns:/run/netns/held{annotations} box sleep infinity")
    for end in ("podman stop --time 0 held", "podman kill held"):
        do("podman start held")
        eventually(lambda: is_up("held"))
        do(end)
        eventually(lambda: is_gone("held"))
        assert "192.0.2.1/32" in do("ip -n held -o address")
    do("podman rm held; ip netns delete held; rm /etc/linxd/netns/held.toml")


def test_linxd_service_finds_it_and_not_its_monitor(host: object) -> None:
    rule = Path("/etc/linxd/host.toml.d/podman.toml")
    rule.parent.mkdir(exist_ok=True)
    rule.write_text('[[attach]]\nunit = "libpod-(?P<id>.+)\\\\.scope"\nscope = "{id}"\n')
    do("systemctl reload linxd.service")
    name = do("podman create --name found --network none box sleep infinity").strip()
    declared = Path(f"/run/linxd/netns/{name}.toml")
    declared.write_text(
        f'[scope]\nnetns = "unit:libpod-{name}.scope"\n[link.lo]\nup = true\naddresses = ["192.0.2.2/32"]\n'
    )
    monitor = Path(f"/run/linxd/netns/conmon-{name[:50]}.toml")
    monitor.write_text("")
    for end in ("podman stop --time 0 found", "podman kill found"):
        do("podman start found")
        eventually(lambda: is_up(name))
        assert "192.0.2.2/32" in inside("found", "ip -o address")
        assert "conmon" not in do("systemctl list-units --all --plain --no-legend linx-*")
        do(end)
        lived()
        eventually(lambda: is_gone(name))
    do(f"podman rm found; rm -r {declared} {monitor} {rule.parent} /run/linxd-state/{name}")
    do("systemctl reload linxd.service")


_KILL = """
find /sys/fs/cgroup/machine.slice -path '*/libpod-[!c]*' -name cgroup.procs -exec cat {} + |
  xargs -r kill -KILL
"""


@RUNTIMES
def test_killed_at_any_moment_of_its_start_it_leaves_nothing(runtime: str) -> None:
    """Its first process is killed: while it is held, and in what comes before and after."""
    rng = random.Random(SEED)
    begin = "podman run -d --name web --network none --annotation org.linxd.scope=web box sleep infinity"
    began = time.monotonic()
    do(begin)
    whole = time.monotonic() - began
    do("podman rm --force --time 0 web")
    for _ in range(KILLS):
        with subprocess.Popen(["sh", "-c", begin], stdout=-3, stderr=-3) as starting:
            # No event to be waited for: the moment is to be any.
            threading.Event().wait(whole * rng.random())
            run(_KILL)
            starting.wait(PATIENCE)
        run("podman rm --force --time 0 web")
        lived()
        eventually(lambda: is_forgotten("web"))


@RUNTIMES
def test_without_its_network_it_does_not_start(runtime: str) -> None:
    begin = "podman run --rm --network none --annotation org.linxd.scope={} box sh -c 'echo it runs'"
    broken = Path("/etc/linxd/netns/broken.toml")
    broken.write_text('[link.eth0]\nkind = "veth"\npeer = { name = "x" }\nadresses = ["10.1.0.9/24"]\n')
    refused = run(begin.format("broken"))
    assert refused.returncode != 0
    assert "it runs" not in refused.stdout
    said = do("journalctl --no-pager -o cat LINX_SCOPE=broken")
    assert "container refused" in said
    assert "link.eth0.adresses: unknown key" in said
    assert "Traceback" not in refused.stderr + said
    eventually(lambda: is_forgotten("broken"))
    broken.unlink()
    # crun keeps to itself what a hook says.
    assert "container refused" in refused.stderr or runtime == "crun"


@pytest.mark.parametrize(
    ("name", "why"), [("none", "/etc/linxd/netns/none.toml"), ("../web", "no scope's name")], ids=str
)
def test_without_a_declaration_it_does_not_start(host: object, name: str, why: str) -> None:
    run_it = f"podman run --rm --network none --annotation org.linxd.scope={name} box sh -c 'echo it runs'"
    refused = run(run_it)
    assert refused.returncode != 0
    assert "it runs" not in refused.stdout
    assert why in do("journalctl --no-pager -o cat -b _COMM=oci-hook")


def test_what_waits_for_a_parent_is_refused_unless_it_may(host: object) -> None:
    pending = Path("/etc/linxd/netns/late.toml")
    pending.write_text('[link.mac0]\nkind = "macvlan"\nparent = "host:late0"\nmode = "bridge"\n')
    begin = (
        "podman run {} --name late --network none --annotation org.linxd.scope=late {} box sleep infinity"
    )
    assert run(begin.format("--rm -d", "")).returncode != 0
    said = do("journalctl --no-pager -o cat LINX_SCOPE=late")
    assert re.search("container refused: its network is degraded\n.*late0", said), said
    eventually(lambda: is_forgotten("late"))
    do(begin.format("-d", "--annotation org.linxd.require=ready"))
    assert says("late").startswith("degraded: ")
    do("ip link add late0 up type dummy")
    eventually(lambda: is_up("late"))
    do("ip link delete late0; podman rm --force --time 0 late")
    lived()
    eventually(lambda: is_forgotten("late"))
    pending.unlink()


def test_two_on_one_bridge_reach_each_other_and_the_host(host: object) -> None:
    declared = Path("/etc/linxd/netns/web.toml").read_text()
    other = Path("/etc/linxd/netns/other.toml")
    other.write_text(
        declared.replace("web-eth0", "other-eth0").replace("0.2/24", "0.4/24").replace("::2", "::4")
    )
    for name in ("web", "other"):
        start = f"--name {name} --network none --annotation org.linxd.scope={name}"
        do(f"podman run -d {start} box sleep infinity")
    for address in ("10.1.0.4", "10.1.0.1"):
        inside("web", f"busybox ping -c 1 -W 60 {address}")
    inside("other", "busybox ping -c 1 -W 60 fd00:1::2")
    # A scope has one container at a time.
    second = run("podman run --rm --network none --annotation org.linxd.scope=web box sh -c 'echo it runs'")
    assert second.returncode != 0
    assert "it runs" not in second.stdout
    assert "as long as that lives" in do("journalctl --no-pager -o cat LINX_SCOPE=web")
    is_up("web")
    # What drifts in one, and at the host's end of it, comes back, and is no matter of the other's.
    inside("web", "ip address delete 10.1.0.2/24 dev eth0")
    eventually(lambda: has(inside("web", "ip -o address show dev eth0"), "10.1.0.2/24"))
    do("ip link set web-eth0 nomaster")
    eventually(lambda: has(do("ip -o link show master br0"), "web-eth0"))
    written = "journalctl --no-pager -o cat MESSAGE_ID=b17cd482ddd641a6b68c69661eb7bdc7 LINX_SCOPE={} -b"
    assert "restored" in do(written.format("web"))
    assert "restored" not in do(written.format("other"))
    assert "restored" not in do(written.format("host"))
    do("podman rm --force --time 0 web other")
    lived()
    lived()
    eventually(lambda: (is_forgotten("web"), is_forgotten("other")))
    other.unlink()


def test_what_is_the_whole_kernels_is_set_by_the_host_and_given_back(host: object) -> None:
    """Not podman's; it takes a machine with a kernel of its own."""
    panic = Path("/proc/sys/kernel/panic")
    first = panic.read_text()
    declared = Path("/etc/linxd/host.toml.d/kernel.toml")
    declared.parent.mkdir(exist_ok=True)
    declared.write_text('[sysctl]\n"kernel.panic" = 7\n')
    assert first != "7\n"
    do("systemctl reload linxd.service")
    assert panic.read_text() == "7\n"
    do(f"rm -r {declared.parent}; systemctl reload linxd.service")
    assert panic.read_text() == first


@RUNTIMES
def test_a_pod_is_one_scope_whichever_of_its_containers_come_and_go(runtime: str) -> None:
    files("A pod")
    do(commands("A pod"))
    is_up("shop")
    unit = "linx-reconcile@shop.service"
    served = do(f"systemctl show -P MainPID {unit}")
    for name in ("front", "back"):
        assert "10.1.0.5/24" in inside(name, "ip -o address show dev eth0")
    # The one that was first, and had the scope started, ends; it stays for the other.
    do("podman stop --time 0 front")
    lived()
    inside("back", "ip address delete 10.1.0.5/24 dev eth0")
    eventually(lambda: has(inside("back", "ip -o address show dev eth0"), "10.1.0.5/24"))
    do(f"systemctl reload {unit}; podman start front; podman stop --time 0 back")
    lived()
    is_up("shop")
    assert "10.1.0.5/24" in inside("front", "ip -o address show dev eth0")
    assert do(f"systemctl show -P MainPID {unit}") == served
    do(commands("A pod", 1))
    lived()
    eventually(lambda: is_forgotten("shop"))
    Path("/etc/linxd/netns/shop.toml").unlink()


def test_a_quadlet_has_its_network_with_the_hook_and_without(host: object) -> None:
    if not Path("/usr/lib/systemd/system-generators/podman-system-generator").exists():
        pytest.skip("this podman has no quadlets")
    files("A quadlet")
    for name in ("app", "plain"):
        # One that ends when it is told to, and not ten seconds later; systemd hears of it as 128 + SIGTERM,
        # and would take that for a failure.
        folder = Path(f"/etc/containers/systemd/{name}.container.d")
        folder.mkdir()
        (folder / "init.conf").write_text("[Container]\nRunInit=true\n\n[Service]\nSuccessExitStatus=143\n")
    do(commands("A quadlet"))
    is_up("app")
    assert "10.1.0.6/24" in inside("systemd-app", "ip -o address show dev eth0")
    do("systemctl restart app.service")
    lived()
    is_up("app")
    assert "10.1.0.6/24" in inside("systemd-app", "ip -o address show dev eth0")
    do("systemctl stop app.service")
    lived()
    eventually(lambda: is_forgotten("app"))
    do("systemctl start plain.service")
    eventually(lambda: is_up("plain"))
    for _ in range(2):
        assert "10.1.0.7/24" in inside("systemd-plain", "ip -o address show dev eth0")
        do("systemctl restart plain.service")
        lived()
        eventually(lambda: has(inside("systemd-plain", "ip -o address"), "10.1.0.7/24"))
        eventually(lambda: is_up("plain"))
    do("systemctl stop plain.service")
    lived()
    eventually(lambda: is_gone("plain"))
    do("rm -r /etc/containers/systemd /etc/linxd/netns/app.toml /etc/linxd/netns/plain.toml")
    do("systemctl daemon-reload")


def test_a_users_own_container_runs_without_until_root_has_it_kept(host: object) -> None:
    do("id alice >/dev/null 2>&1 || useradd --create-home alice")
    users("tar -C /var/tmp/box -c . | podman import - box")
    users("podman run -d --network none --name mine box sleep infinity")
    assert state("linx-reconcile@mine.service") == ENDED
    files("A user's own podman")
    do(commands("A user's own podman"))
    is_up("mine")
    pid = users("podman inspect -f '{{.State.Pid}}' mine").strip()
    assert "10.1.0.8/24" in do(f"nsenter -t {pid} -n ip -o address show dev eth0")
    users("podman rm --force --time 0 mine")
    lived()
    eventually(lambda: is_gone("mine"))
    # That a user names the scope himself gives him nothing.
    annotated = "podman run --rm --network none --annotation org.linxd.scope=mine box sh -c 'echo it runs'"
    refused = run(as_user(annotated))
    assert refused.returncode != 0
    assert "it runs" not in refused.stdout
    assert "only root's containers" in do("journalctl --no-pager -o cat LINX_SCOPE=mine")
    do("rm -r /run/linxd/netns/mine.toml.d /etc/linxd/netns/mine.toml; pkill -u alice || true")


def as_user(script: str) -> str:
    return f"runuser -u alice -- sh -euc {shlex.quote('cd; ' + script)}"


def users(script: str) -> str:
    return do(as_user(script))


def test_links_on_a_parent_of_the_hosts_come_and_go_with_it(host: object) -> None:
    files("On a link of the host's")
    do(commands("On a link of the host's"))
    is_up("lan")
    for name, kind, address in _ON_PARENTS:
        seen = inside("lan", f"ip -d -o address show dev {name}")
        assert address in seen
        assert f"{kind} " in inside("lan", f"ip -d -o link show dev {name}")
    do("ip link set eno1 down; ip link set eno1 up")
    eventually(lambda: is_up("lan"))
    do("ip link delete eno1")
    eventually(lambda: has(says("lan"), "degraded: "))
    assert "mac0" not in inside("lan", "ip -o link")
    do("ip link add eno1 up type dummy")
    eventually(lambda: is_up("lan"))
    for name, _, address in _ON_PARENTS:
        assert address in inside("lan", f"ip -o address show dev {name}")
    do("podman rm --force --time 0 lan")
    lived()
    eventually(lambda: is_forgotten("lan"))
    Path("/etc/linxd/netns/lan.toml").unlink()


_ON_PARENTS = (
    ("mac0", "macvlan", "192.0.2.10/24"),
    ("vlan0", "vlan", "198.51.100.10/24"),
    ("ipv0", "ipvlan", "203.0.113.10/24"),
)


def test_after_many_lives_nothing_is_left(host: dict[str, list[str]]) -> None:
    while (number := next(_lives)) < LIVES:
        do(f"podman run --rm --network none --annotation org.linxd.scope=web box sh -c ': {number}'")
    do("podman rm --force --all --time 0")

    def look() -> None:
        now = _left()
        more = {of: left for of in now if (left := sorted(set(now[of]) - set(host[of])))}
        gone = {of: lost for of in now if (lost := sorted(set(host[of]) - set(now[of])))}
        assert (more, gone) == ({}, {})
        assert now == host

    eventually(look)
