# SPDX-License-Identifier: MIT
"""Which files make a scope, how they merge, and who may have written them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from linxd.config import ConfigError, Undeclared, declared_names, load, load_all
from tests.config.tree import Tree

ROUTE = '[[route]]\nto = "default"\nvia = "10.0.0.1"\n'


# --- which file --------------------------------------------------------------------------------------------


def test_the_first_directory_that_has_the_file_wins(tree: Tree) -> None:
    tree.write("lib/netns/c1.toml", '[scope]\nresync = "1s"\n')
    tree.write("run/netns/c1.toml", '[scope]\nresync = "2s"\n')
    assert tree.load().resync == 2
    tree.write("etc/netns/c1.toml", '[scope]\nresync = "3s"\n')
    config = tree.load()
    assert config.resync == 3
    assert config.files == (str(tree.top / "etc/netns/c1.toml"),)


def test_no_file_is_not_an_empty_one(tree: Tree) -> None:
    with pytest.raises(Undeclared) as error:
        tree.load()
    assert "no file declares c1" in str(error.value)


@pytest.mark.parametrize("how", ["empty", "null"])
def test_an_empty_file_and_a_link_to_dev_null_mask(tree: Tree, how: str) -> None:
    tree.write("lib/netns/c1.toml", ROUTE)
    file = tree.write("etc/netns/c1.toml", "")
    if how == "null":
        file.unlink()
        file.symlink_to("/dev/null")
    with pytest.raises(Undeclared) as error:
        tree.load()
    assert str(error.value) == f"{file}: masks c1: nothing is declared"
    assert declared_names(tree.directories) == ()


def test_a_drop_in_without_a_main_file_counts_for_nothing(tree: Tree) -> None:
    tree.write("etc/netns/c1.toml.d/10-more.toml", ROUTE)
    with pytest.raises(Undeclared):
        tree.load()
    assert declared_names(tree.directories) == ()


def test_names_that_have_a_file_are_listed_the_host_first(tree: Tree) -> None:
    tree.write("lib/netns/zz.toml", ROUTE)
    tree.write("run/netns/a-b.toml", ROUTE)
    tree.write("run/netns/host.toml", ROUTE)
    tree.write("run/netns/-no.toml", ROUTE)
    tree.write("run/netns/readme.txt", "")
    tree.write("run/netns/off.toml", "")
    tree.write("etc/host.toml", "[scope]\n")
    assert declared_names(tree.directories) == ("host", "a-b", "zz")


@pytest.mark.parametrize("name", ["", "-a", ".a", "a/b", "a b", "a" * 65, "é", "a\n", "..", "host/x"])
def test_a_name_that_no_scope_can_have_is_refused(tree: Tree, name: str) -> None:
    assert tree.faults(name)[0].endswith("(it begins with a letter, a digit or _)")


@pytest.mark.parametrize("name", ["a", "_", "9", "web-1", "a.b_c-d", "a" * 64])
def test_names_that_scopes_can_have(tree: Tree, name: str) -> None:
    tree.write(f"etc/netns/{name}.toml", ROUTE)
    assert tree.load(name).name == name
    assert str(tree.load(name).netns) == f"/run/netns/{name}"


# --- drop-ins ----------------------------------------------------------------------------------------------


def test_drop_ins_of_all_directories_come_in_the_order_of_their_names(tree: Tree) -> None:
    tree.write("run/netns/c1.toml", '[scope]\nresync = "1s"\n')
    tree.write("lib/netns/c1.toml.d/30-c.toml", '[scope]\nresync = "3s"\n')
    tree.write("etc/netns/c1.toml.d/20-b.toml", '[scope]\nresync = "2s"\n')
    tree.write("etc/netns/c1.toml.d/40-d.txt", "not read")
    tree.write("etc/netns/c1.toml.d/.50-e.toml", "not read")
    config = tree.load()
    assert config.resync == 3
    assert [Path(file).name for file in config.files] == ["c1.toml", "20-b.toml", "30-c.toml"]


def test_a_drop_in_of_the_same_name_in_an_earlier_directory_hides_later_ones(tree: Tree) -> None:
    tree.write("etc/netns/c1.toml", '[scope]\nresync = "1s"\n')
    tree.write("lib/netns/c1.toml.d/10-a.toml", '[scope]\nresync = "5s"\non-stop = "remove"\n')
    tree.write("run/netns/c1.toml.d/10-a.toml", '[scope]\nresync = "4s"\n')
    assert (tree.load().resync, tree.load().on_stop) == (4, "keep")
    hidden = tree.write("etc/netns/c1.toml.d/10-a.toml", "")
    assert tree.load().resync == 1
    hidden.unlink()
    hidden.symlink_to("/dev/null")
    assert tree.load().resync == 1


def test_the_host_has_drop_ins_too(tree: Tree) -> None:
    tree.write("etc/host.toml", '[scope]\nresync = "1s"\n')
    tree.write("run/host.toml.d/10-a.toml", '[sysctl]\n"net.ipv4.ip_forward" = 1\n')
    sysctl = tree.load("host").sysctl
    assert sysctl is not None
    assert sysctl.host
    assert sysctl.settings[0].value == "1"


def test_a_file_given_by_name_stands_alone(tree: Tree) -> None:
    tree.write("etc/netns/c1.toml", '[scope]\nresync = "1s"\n')
    tree.write("etc/netns/c1.toml.d/10-a.toml", '[scope]\nresync = "2s"\n')
    file = tree.write("other/mine.toml", '[scope]\nresync = "9s"\n')
    config = tree.load(file=file)
    assert (config.resync, config.files) == (9, (str(file),))


# --- merging -----------------------------------------------------------------------------------------------


def merged(tree: Tree, main: str, *drop_ins: str) -> Tree:
    tree.write("etc/netns/c1.toml", main)
    for number, text in enumerate(drop_ins):
        tree.write(f"etc/netns/c1.toml.d/{number}.toml", text)
    return tree


def test_tables_merge_key_by_key_and_later_scalars_win(tree: Tree) -> None:
    main = '[link.veth0]\nkind = "veth"\nmtu = 1400\npeer = { name = "x", scope = "host", up = false }\n'
    config = merged(tree, main, '[link.veth0]\nmtu = 9000\npeer = { master = "br0" }\n').load()
    link = config.rtnl.links["veth0"]
    assert link.attributes["mtu"] == 9000
    assert link.peer is not None
    assert (link.peer.name, link.peer.scope, link.peer.up, link.peer.master) == ("x", "host", False, "br0")


def test_addresses_are_appended_and_an_identical_one_is_replaced_whole(tree: Tree) -> None:
    main = (
        '[link.eth0]\naddresses = [{ address = "10.0.0.5/24", metric = 7, scope = "link" }, "10.0.0.6/24"]\n'
    )
    more = '[link.eth0]\naddresses = ["10.0.0.7/24", { address = "10.0.0.5/24", metric = 9 }]\n'
    addresses = merged(tree, main, more).load().rtnl.addresses
    found = {item.address: (item.metric, item.scope) for item in addresses.values()}
    assert found == {"10.0.0.6": (0, 0), "10.0.0.7": (0, 0), "10.0.0.5": (9, 0)}


def test_the_position_is_that_of_the_file_that_wins(tree: Tree) -> None:
    config = merged(tree, ROUTE, f"# one line down\n{ROUTE}").load()
    (route,) = config.rtnl.routes.values()
    assert str(route.where) == f"{tree.top}/etc/netns/c1.toml.d/0.toml:2"


def test_a_route_is_the_same_by_table_destination_tos_and_metric(tree: Tree) -> None:
    later = '[[route]]\nto = "0.0.0.0/0"\ntable = 254\nvia = "10.0.0.2"\nmtu = 1400\n'
    (route,) = merged(tree, ROUTE, later).load().rtnl.routes.values()
    assert (route.via, route.metrics) == ("10.0.0.2", ((2, 1400),))
    other = '[[route]]\nto = "default"\nmetric = 5\nvia = "10.0.0.3"\n'
    assert len(merged(tree, ROUTE, later, other).load().rtnl.routes) == 2


def test_rules_and_neighbours_have_identities_too(tree: Tree) -> None:
    main = (
        '[[rule]]\nfrom = "10.0.0.0/8"\ntable = 7\nsuppress_prefixlength = 0\n'
        '[[neighbour]]\naddress = "fd00::9"\ndev = "eth0"\nlladdr = "02:00:00:00:00:01"\n'
    )
    later = (
        '[[rule]]\nfrom = "10.0.0.0/8"\ntable = "7"\n'
        '[[neighbour]]\naddress = "FD00:0::9"\ndev = "eth0"\nlladdr = "02:00:00:00:00:02"\n'
    )
    rtnl = merged(tree, main, later).load().rtnl
    (rule,), (neighbour,) = rtnl.rules.values(), rtnl.neighbours.values()
    assert rule.suppress_prefixlength is None
    assert neighbour.lladdr == "02:00:00:00:00:02"


def test_absent_withdraws_what_an_earlier_file_declares(tree: Tree) -> None:
    main = (
        f'{ROUTE}[link.eth0]\naddresses = ["10.0.0.5/24", "10.0.0.6/24"]\n'
        '[link.eth1]\naddresses = ["fd00::1/64"]\n'
        '[[rule]]\nfamily = "both"\ntable = 7\n'
        '[[neighbour]]\naddress = "10.0.0.9"\ndev = "eth0"\nlladdr = "02:00:00:00:00:01"\n'
        '[sysctl]\n"net.ipv4.ip_forward" = 1\n"net.ipv4.tcp_sack" = 0\n'
    )
    withdrawing = (
        '[[route]]\nto = "default"\nfamily = "inet"\nabsent = true\n'
        '[link.eth0]\naddresses = [{ address = "10.0.0.5/24", absent = true }]\n'
        "[link.eth1]\nabsent = true\n"
        '[[rule]]\nfamily = "inet6"\ntable = 7\nabsent = true\n'
        '[[neighbour]]\naddress = "10.0.0.9"\ndev = "eth0"\nabsent = true\n'
        '[sysctl]\n"net/ipv4/ip_forward" = { absent = true }\n'
    )
    config = merged(tree, main, withdrawing).load()
    assert config.warnings == ()
    assert [item.address for item in config.rtnl.addresses.values()] == ["10.0.0.6"]
    assert list(config.rtnl.links) == ["eth0"]
    assert not config.rtnl.routes
    assert [rule.family for rule in config.rtnl.rules.values()] == [2]
    assert not config.rtnl.neighbours
    assert config.sysctl is not None
    assert [setting.path[-1] for setting in config.sysctl.settings] == ["tcp_sack"]


def test_what_was_withdrawn_can_be_declared_again(tree: Tree) -> None:
    gone = '[[route]]\nto = "default"\nfamily = "inet"\nabsent = true\n'
    assert len(merged(tree, ROUTE, gone, ROUTE).load().rtnl.routes) == 1


def test_withdrawing_what_nobody_declares_is_worth_a_warning(tree: Tree) -> None:
    merged(tree, '[[route]]\nto = "10.0.0.0/8"\nabsent = true\n')
    assert tree.warnings() == [
        "etc/netns/c1.toml:1:1: warning: route[0]: withdraws 10.0.0.0/8, which no earlier file declares"
    ]


def test_the_same_object_twice_in_one_file_is_a_fault_and_in_two_files_not(tree: Tree) -> None:
    merged(tree, ROUTE + ROUTE)
    assert tree.faults() == [
        "etc/netns/c1.toml:4:1: route[1]: the same route is declared on line 1 already (default)"
    ]


def test_other_arrays_are_replaced(tree: Tree) -> None:
    main = '[netfilter]\nfilled = ["ip a b"]\n[sysctl]\n"net.ipv4.tcp_rmem" = [1, 2, 3]\n'
    config = merged(
        tree, main, '[netfilter]\nfilled = ["ip c d"]\n[sysctl]\n"net/ipv4/tcp_rmem" = [4]\n'
    ).load()
    assert config.netfilter is not None
    assert config.netfilter.filled == ("ip c d",)
    assert config.sysctl is not None
    assert [setting.value for setting in config.sysctl.settings] == ["4"]


def test_sysctl_keys_merge_whatever_spelling_they_have(tree: Tree) -> None:
    main = '[sysctl]\n"net.ipv4.conf.eth0/100.rp_filter" = { value = 1, on-release = "keep" }\n'
    config = merged(tree, main, '[sysctl]\n"net/ipv4/conf/eth0.100/rp_filter" = { value = 2 }\n').load()
    assert config.sysctl is not None
    (setting,) = config.sysctl.settings
    assert (setting.path[3], setting.value, setting.restore) == ("eth0.100", "2", False)


def test_rulesets_of_all_files_load_together_in_order(tree: Tree) -> None:
    tree.write("etc/netns/c1.toml.d/b.nft", "table inet b {}\n")
    main = '[netfilter]\nruleset = """\ntable inet a {}\n"""\n'
    config = merged(
        tree, main, '[netfilter]\nfile = "b.nft"\n', '[netfilter]\nruleset = "table inet c {}"\n'
    ).load()
    assert config.netfilter is not None
    shown = [
        (item.text, item.file.removeprefix(f"{tree.top}/"), item.line) for item in config.netfilter.rulesets
    ]
    assert shown == [
        ("table inet a {}\n", "etc/netns/c1.toml", 3),
        ("table inet b {}\n", "etc/netns/c1.toml.d/b.nft", 1),
        ("table inet c {}", "etc/netns/c1.toml.d/1.toml", 2),
    ]
    assert config.netfilter.rulesets[0].base == f"{tree.top}/etc/netns"
    assert config.netfilter.roots == tree.directories


def test_faults_of_all_files_are_told_together(tree: Tree) -> None:
    merged(tree, "[scope]\nresync = 1\n", "[scop]\n", "[link.eth0]\nmtuu = 1\n")
    assert [line.partition(": ")[0] for line in tree.faults()] == [
        "etc/netns/c1.toml:2:10",
        "etc/netns/c1.toml.d/0.toml:1:2",
        "etc/netns/c1.toml.d/1.toml:2:1",
    ]


def test_what_is_no_toml_is_told_for_every_file(tree: Tree) -> None:
    merged(tree, "a = \n", "b\n")
    assert tree.faults() == [
        "etc/netns/c1.toml:1:5: not TOML: invalid value",
        "etc/netns/c1.toml.d/0.toml:1:2: not TOML: expected '=' after a key in a key/value pair",
    ]


# --- files that files name ---------------------------------------------------------------------------------


def test_a_named_file_outside_the_directories_is_refused_after_symlinks(tree: Tree) -> None:
    tree.write("outside/secret.nft", "table inet a {}\n")
    (tree.top / "etc/netns").mkdir()
    (tree.top / "etc/netns/link.nft").symlink_to(tree.top / "outside/secret.nft")
    merged(tree, '[netfilter]\nfile = "link.nft"\n', '[netfilter]\nfile = "../../../outside/secret.nft"\n')
    faults = tree.faults()
    assert len(faults) == 2
    assert all("netfilter.file: outside/secret.nft is outside " in line for line in faults)


def test_a_named_file_may_lie_in_another_of_the_directories(tree: Tree) -> None:
    tree.write("lib/rules.nft", "table inet a {}\n")
    (tree.top / "etc/netns").mkdir()
    (tree.top / "etc/netns/link.nft").symlink_to(tree.top / "lib/rules.nft")
    config = merged(tree, '[netfilter]\nfile = "link.nft"\n').load()
    assert config.netfilter is not None
    assert config.netfilter.rulesets[0].text == "table inet a {}\n"


def test_beside_a_file_given_by_name_its_own_directory_counts(tree: Tree) -> None:
    tree.write("mine/a.nft", "table inet a {}\n")
    file = tree.write("mine/c1.toml", '[netfilter]\nfile = "a.nft"\n')
    config = tree.load(file=file)
    assert config.netfilter is not None
    assert config.netfilter.roots == (str(tree.top / "mine"),)
    tree.write("etc/b.nft", "table inet b {}\n")
    tree.write("mine/c1.toml", '[netfilter]\nfile = "../etc/b.nft"\n')
    assert "is outside" in tree.faults(file=file)[0]


def test_a_named_file_that_is_not_there(tree: Tree) -> None:
    merged(tree, '[netfilter]\nfile = "none.nft"\n')
    assert tree.faults() == [
        "etc/netns/c1.toml:2:8: netfilter.file: etc/netns/none.nft can't be read: No such file or directory"
    ]


# --- who may have written them -----------------------------------------------------------------------------


def strict(tree: Tree) -> list[str]:
    """Faults of c1 when files must be root's, below a directory that is."""
    with pytest.raises(ConfigError) as error:
        load("c1", directories=tree.directories, owners=(0,))
    return [str(fault).replace(f"{tree.top}/", "") for fault in error.value.faults]


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of other users are made")


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_can_write_is_refused(tree: Tree, mode: int) -> None:
    file = tree.write("etc/netns/c1.toml", ROUTE)
    file.chmod(mode)
    assert tree.faults() == [
        f"etc/netns/c1.toml: has mode {mode:04o}: its group or everybody can write to it "
        "(files and directories belong to root and are writable by nobody else)"
    ]


@pytest.mark.parametrize("folder", ["etc", "etc/netns"])
def test_a_directory_that_others_can_write_is_refused(tree: Tree, folder: str) -> None:
    tree.write("etc/netns/c1.toml", ROUTE)
    (tree.top / folder).chmod(0o775)
    assert tree.faults()[0].startswith(
        f"etc/netns/c1.toml: is in {folder}, which has mode 0775: its group or everybody can write to it"
    )


def test_a_directory_of_drop_ins_that_others_can_write_is_refused(tree: Tree) -> None:
    merged(tree, ROUTE, "[scope]\n")
    (tree.top / "etc/netns/c1.toml.d").chmod(0o1777)
    assert tree.faults()[0].startswith(
        "etc/netns/c1.toml.d/0.toml: is in etc/netns/c1.toml.d, which has mode 1777"
    )


@needs_root
def test_another_users_file_is_refused(tree: Tree) -> None:
    file = tree.write("etc/netns/c1.toml", ROUTE)
    os.chown(file, 65534, -1)
    assert strict(tree)[0].startswith("etc/netns/c1.toml: belongs to user 65534")
    os.chown(file, 0, -1)
    os.chown(file.parent, 65534, -1)
    assert strict(tree)[0].startswith("etc/netns/c1.toml: is in etc/netns, which belongs to user 65534")


@needs_root
def test_a_link_into_another_users_directory_is_refused(tree: Tree) -> None:
    theirs = tree.write("home/theirs/c1.toml", ROUTE)
    os.chown(theirs.parent, 65534, -1)
    (tree.top / "etc/netns").mkdir()
    (tree.top / "etc/netns/c1.toml").symlink_to(theirs)
    assert strict(tree)[0].startswith("etc/netns/c1.toml: is in home/theirs, which belongs to user 65534")


@needs_root
def test_a_named_ruleset_is_looked_at_as_well(tree: Tree) -> None:
    rules = tree.write("etc/netns/a.nft", "table inet a {}\n")
    tree.write("etc/netns/c1.toml", '[netfilter]\nfile = "a.nft"\n')
    os.chown(rules, 65534, -1)
    assert "etc/netns/a.nft belongs to user 65534" in strict(tree)[0]


@needs_root
def test_a_user_may_load_a_file_of_their_own(tree: Tree) -> None:
    file = tree.write("mine/c1.toml", ROUTE)
    os.chown(file, 65534, -1)
    os.chown(file.parent, 65534, -1)
    config = load("c1", file=str(file), directories=tree.directories, owners=(0, 65534))
    assert config.rtnl.routes
    assert load("c1", file=str(file), directories=tree.directories, owners=None).rtnl.routes


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_what_is_no_regular_file_is_refused_and_never_waited_for(tree: Tree, kind: str) -> None:
    path = tree.top / "etc/netns/c1.toml"
    path.parent.mkdir()
    if kind == "fifo":
        os.mkfifo(path, 0o644)
    else:
        path.mkdir()
    assert tree.faults() == ["etc/netns/c1.toml: is not a regular file"]


def test_a_circle_of_links_is_a_fault(tree: Tree) -> None:
    (tree.top / "etc/netns").mkdir()
    (tree.top / "etc/netns/c1.toml").symlink_to("c2.toml")
    (tree.top / "etc/netns/c2.toml").symlink_to("c1.toml")
    assert tree.faults()[0].startswith("etc/netns/c1.toml: leads through too many symbolic links")


def test_text_that_is_not_utf8_is_a_fault(tree: Tree) -> None:
    tree.write("etc/netns/c1.toml", "x").write_bytes(b"# one\n# \xff\n")
    assert tree.faults() == ["etc/netns/c1.toml: is not UTF-8: byte 0xff on line 2"]


def test_all_scopes_are_loaded_each_with_what_came_of_it(tree: Tree) -> None:
    tree.write("etc/host.toml", "[scope]\n")
    tree.write("etc/netns/c1.toml", ROUTE)
    tree.write("etc/netns/c2.toml", "[scop]\n")
    found = dict(load_all(directories=tree.directories, owners=None))
    assert list(found) == ["host", "c1", "c2"]
    assert isinstance(found["c2"], ConfigError)
    assert not isinstance(found["c1"], ConfigError)
