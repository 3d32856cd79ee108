# SPDX-License-Identifier: MIT
"""Every kind of link that can be declared can be made: on this kernel, or on Debian's in a virtual
machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from linxd.sources.rtnl.attributes import KINDS

WORDS = {
    "vlan": ("id", "5"),
    "vxlan": ("id", "7", "dstport", "4789"),
    "vrf": ("table", "100"),
    "veth": ("peer", "name", "probe1"),
    "gre": ("local", "192.0.2.1", "remote", "192.0.2.2"),
    "ip6gre": ("local", "2001:db8::1", "remote", "2001:db8::2"),
    "ip6gretap": ("local", "2001:db8::1", "remote", "2001:db8::2"),
    "ipip": ("local", "192.0.2.1", "remote", "192.0.2.2"),
    "sit": ("local", "192.0.2.1", "remote", "192.0.2.2"),
    "ip6tnl": ("local", "2001:db8::1", "remote", "2001:db8::2"),
    "gretap": ("local", "192.0.2.1", "remote", "192.0.2.2"),
}


@pytest.mark.kinds
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_kernel_has(kind: str, has_kind: Callable[..., None]) -> None:
    has_kind(kind, *WORDS.get(kind, ()), parent=bool(KINDS[kind].needs_parent))
