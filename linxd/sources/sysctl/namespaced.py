# SPDX-License-Identifier: MIT
"""Which keys a network namespace has for itself, told by name alone.

For loading files, where no namespace is at hand: it reads nothing. What it does not know it lets through;
the namespace's own tree has the last word when the key is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping

from linxd.sources.sysctl.model import Path, dotted


def _names(words: Mapping[str, str]) -> frozenset[str]:
    return frozenset(f"{where}.{name}" for where, names in words.items() for name in names.split())


# Found by comparing the trees of the first and of a fresh namespace, key by key; the tests do that again on
# the kernel they run on.
_NOT_THERE = _names(
    {
        "net": "nf_conntrack_max",
        "net.core": """
            bpf_jit_enable bpf_jit_harden bpf_jit_kallsyms bpf_jit_limit busy_poll busy_read default_qdisc
            dev_weight dev_weight_rx_bias dev_weight_tx_bias devconf_inherit_init_net
            fb_tunnels_only_for_init_net flow_limit_cpu_bitmap flow_limit_table_len gro_normal_batch
            high_order_alloc_disable max_skb_frags mem_pcpu_rsv message_burst message_cost netdev_budget
            netdev_budget_usecs netdev_max_backlog netdev_rss_key netdev_tstamp_prequeue
            netdev_unregister_timeout_secs rps_sock_flow_entries skb_defer_max warnings""",
        "net.ipv4": """
            cipso_cache_bucket_size cipso_cache_enable cipso_rbm_optfmt cipso_rbm_strictvalid fib_sync_mem
            inet_peer_maxttl inet_peer_minttl inet_peer_threshold ipfrag_secret_interval tcp_available_ulp
            tcp_low_latency tcp_max_orphans tcp_mem udp_mem""",
        "net.ipv4.route": """
            error_burst error_cost gc_elasticity gc_interval gc_min_interval gc_min_interval_ms gc_thresh
            gc_timeout max_size redirect_load redirect_number redirect_silence""",
        "net.ipv6": """
            calipso_cache_bucket_size calipso_cache_enable ip6frag_secret_interval mld_max_msf mld_qrv""",
        "net.netfilter": "nf_log_all_netns",
    }
)
_NEIGHBOUR_DEFAULTS = (("net", "ipv4", "neigh", "default"), ("net", "ipv6", "neigh", "default"))
_READ_ONLY_THERE = _names(
    {
        "net.core": "rmem_default rmem_max wmem_default wmem_max",
        "net.ipv4": "tcp_allowed_congestion_control",
        "net.netfilter": "nf_conntrack_buckets nf_conntrack_expect_max nf_conntrack_max",
    }
)
# The one key found that every namespace shows and may write though all of them share it
# (net/netfilter/nf_hooks_lwtunnel.c: a static key, which can't be cleared again either).
_SHARED = frozenset({"net.netfilter.nf_hooks_lwtunnel"})


def per_namespace(path: Path) -> str | None:
    """Why a key can't be declared for a network namespace other than the first; None if it can, as far as
    its name tells."""
    name = dotted(path)
    if path[0] != "net":
        reason = "is not a key of a network namespace: only net.* is"
    elif name in _NOT_THERE or path[:4] in _NEIGHBOUR_DEFAULTS:
        reason = "exists once for the whole machine, a network namespace has none of its own"
    elif name in _READ_ONLY_THERE:
        reason = "can only be read in a network namespace, it is set for the whole machine"
    elif name in _SHARED:
        reason = "can be written in a network namespace, but all namespaces share it"
    else:
        return None
    return f"{reason}; it belongs into host.toml"
