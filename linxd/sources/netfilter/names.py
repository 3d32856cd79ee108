# SPDX-License-Identifier: MIT
"""The numbers of include/uapi/linux/netfilter/nf_tables.h, under their own names, and the words for some of
them.

It must not know what is done with them.
"""

from __future__ import annotations

from linxd.netlink.nft import SUBSYSTEM

# --- messages -------------------------------------------------------------------------------------
NEWTABLE, GETTABLE, DELTABLE = SUBSYSTEM | 0, SUBSYSTEM | 1, SUBSYSTEM | 2
NEWCHAIN, GETCHAIN, DELCHAIN = SUBSYSTEM | 3, SUBSYSTEM | 4, SUBSYSTEM | 5
NEWRULE, GETRULE, DELRULE = SUBSYSTEM | 6, SUBSYSTEM | 7, SUBSYSTEM | 8
NEWSET, GETSET, DELSET = SUBSYSTEM | 9, SUBSYSTEM | 10, SUBSYSTEM | 11
NEWSETELEM, GETSETELEM, DELSETELEM = SUBSYSTEM | 12, SUBSYSTEM | 13, SUBSYSTEM | 14
NEWGEN, GETGEN = SUBSYSTEM | 15, SUBSYSTEM | 16
NEWOBJ, GETOBJ, DELOBJ = SUBSYSTEM | 18, SUBSYSTEM | 19, SUBSYSTEM | 20
NEWFLOWTABLE, GETFLOWTABLE, DELFLOWTABLE = SUBSYSTEM | 22, SUBSYSTEM | 23, SUBSYSTEM | 24

# --- tables ---------------------------------------------------------------------------------------
NFTA_TABLE_NAME, NFTA_TABLE_FLAGS, NFTA_TABLE_HANDLE, NFTA_TABLE_USERDATA, NFTA_TABLE_OWNER = 1, 2, 4, 6, 7
NFT_TABLE_F_DORMANT, NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST = 1, 2, 4

# --- chains ---------------------------------------------------------------------------------------
NFTA_CHAIN_TABLE, NFTA_CHAIN_HANDLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK = 1, 2, 3, 4
NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE, NFTA_CHAIN_FLAGS = 5, 7, 10
NFTA_CHAIN_ID, NFTA_CHAIN_USERDATA = 11, 12
NFT_CHAIN_BASE, NFT_CHAIN_HW_OFFLOAD, NFT_CHAIN_BINDING = 1, 2, 4

NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY, NFTA_HOOK_DEV, NFTA_HOOK_DEVS = 1, 2, 3, 4
NFTA_DEVICE_NAME = 1
NF_DROP, NF_ACCEPT = 0, 1

# --- rules ----------------------------------------------------------------------------------------
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE, NFTA_RULE_EXPRESSIONS = 1, 2, 3, 4
NFTA_RULE_POSITION, NFTA_RULE_USERDATA, NFTA_RULE_CHAIN_ID = 6, 7, 11
NFTA_LIST_ELEM = 1
NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2

# --- sets -----------------------------------------------------------------------------------------
NFTA_SET_TABLE, NFTA_SET_NAME, NFTA_SET_FLAGS, NFTA_SET_KEY_TYPE, NFTA_SET_KEY_LEN = 1, 2, 3, 4, 5
NFTA_SET_DATA_TYPE, NFTA_SET_DATA_LEN, NFTA_SET_POLICY, NFTA_SET_DESC, NFTA_SET_ID = 6, 7, 8, 9, 10
NFTA_SET_TIMEOUT, NFTA_SET_GC_INTERVAL, NFTA_SET_USERDATA, NFTA_SET_OBJ_TYPE = 11, 12, 13, 15
NFTA_SET_HANDLE, NFTA_SET_EXPR, NFTA_SET_EXPRESSIONS = 16, 17, 18
NFTA_SET_DESC_CONCAT = 2
NFT_SET_ANONYMOUS, NFT_SET_CONSTANT, NFT_SET_INTERVAL, NFT_SET_MAP = 1, 2, 4, 8
NFT_SET_TIMEOUT, NFT_SET_EVAL, NFT_SET_OBJECT, NFT_SET_CONCAT = 0x10, 0x20, 0x40, 0x80
NFT_DATA_VERDICT = 0xFFFFFF00

NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_FLAGS, NFTA_SET_ELEM_TIMEOUT = 1, 2, 3, 4
NFTA_SET_ELEM_EXPIRATION, NFTA_SET_ELEM_USERDATA, NFTA_SET_ELEM_EXPR, NFTA_SET_ELEM_PAD = 5, 6, 7, 8
NFTA_SET_ELEM_OBJREF, NFTA_SET_ELEM_KEY_END, NFTA_SET_ELEM_EXPRESSIONS = 9, 10, 11
NFT_SET_ELEM_INTERVAL_END, NFT_SET_ELEM_CATCHALL = 1, 2

NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_ELEMENTS = 1, 2, 3
NFTA_SET_ELEM_LIST_SET_ID = 4

# --- data -----------------------------------------------------------------------------------------
NFTA_DATA_VALUE, NFTA_DATA_VERDICT = 1, 2
NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN, NFTA_VERDICT_CHAIN_ID = 1, 2, 3

# --- stateful objects -----------------------------------------------------------------------------
NFTA_OBJ_TABLE, NFTA_OBJ_NAME, NFTA_OBJ_TYPE, NFTA_OBJ_DATA = 1, 2, 3, 4
NFTA_OBJ_HANDLE, NFTA_OBJ_USERDATA = 6, 8
OBJECT_COUNTER, OBJECT_QUOTA = 1, 2
OBJECT_WORDS = {
    1: "counter",
    2: "quota",
    3: "ct helper",
    4: "limit",
    5: "ct count",
    6: "tunnel",
    7: "ct timeout",
    8: "secmark",
    9: "ct expectation",
    10: "synproxy",
}

# --- flowtables -----------------------------------------------------------------------------------
NFTA_FLOWTABLE_TABLE, NFTA_FLOWTABLE_NAME, NFTA_FLOWTABLE_HOOK = 1, 2, 3
NFTA_FLOWTABLE_HANDLE, NFTA_FLOWTABLE_FLAGS = 5, 7
NFTA_FLOWTABLE_HOOK_NUM, NFTA_FLOWTABLE_HOOK_PRIORITY, NFTA_FLOWTABLE_HOOK_DEVS = 1, 2, 3

# --- what single expressions hold -----------------------------------------------------------------
NFTA_LOOKUP_SET, NFTA_LOOKUP_SET_ID = 1, 4
NFTA_DYNSET_SET_NAME, NFTA_DYNSET_SET_ID, NFTA_DYNSET_EXPR, NFTA_DYNSET_EXPRESSIONS = 1, 2, 7, 10
NFTA_DYNSET_TIMEOUT, NFTA_DYNSET_FLAGS, NFT_DYNSET_F_EXPR = 6, 9, 2
NFTA_EXTHDR_DREG, NFTA_EXTHDR_OFFSET, NFTA_EXTHDR_LEN = 1, 3, 4
NFTA_EXTHDR_FLAGS, NFTA_EXTHDR_SREG = 5, 7
NFTA_OSF_FLAGS = 3
NFTA_OBJREF_IMM_TYPE, NFTA_OBJREF_IMM_NAME, NFTA_OBJREF_SET_NAME, NFTA_OBJREF_SET_ID = 1, 2, 4, 5
NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA = 1, 2
NFTA_FLOW_TABLE_NAME = 1
NFTA_QUOTA_BYTES, NFTA_QUOTA_FLAGS, NFTA_QUOTA_CONSUMED = 1, 2, 4
NFT_QUOTA_F_DEPLETED = 2
NFTA_META_KEY = 2
NFT_META_IIF, NFT_META_OIF, NFT_META_SDIF = 4, 5, 33
NFTA_FIB_RESULT, NFTA_FIB_FLAGS = 2, 3
NFT_FIB_RESULT_OIF, NFTA_FIB_F_PRESENT = 1, 1 << 5

# --- words ----------------------------------------------------------------------------------------
FAMILY_WORDS = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
FAMILIES = {word: number for number, word in FAMILY_WORDS.items()}
NFPROTO_INET, NFPROTO_NETDEV = 1, 5
INET_HOOKS = {0: "prerouting", 1: "input", 2: "forward", 3: "output", 4: "postrouting", 5: "ingress"}
ARP_HOOKS = {0: "input", 1: "output", 2: "forward"}
NETDEV_HOOKS = {0: "ingress", 1: "egress"}


def hook_word(family: int, number: int) -> str:
    """``prerouting`` for hook 0 of an inet chain."""
    words = {3: ARP_HOOKS, 5: NETDEV_HOOKS}.get(family, INET_HOOKS)
    return words.get(number, f"hook {number}")


def family_word(family: int) -> str:
    """``inet`` for 1."""
    return FAMILY_WORDS.get(family, f"family {family}")
