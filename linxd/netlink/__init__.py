# SPDX-License-Identifier: MIT
"""The thin wire layer: netlink sockets, attributes, strict dumps, extended acks, rtnetlink messages.

It carries bytes and knows what they say; it must not know desired state, loops or ownership.
"""
