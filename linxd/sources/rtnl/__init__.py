# SPDX-License-Identifier: MIT
"""The rtnetlink source: links, addresses, routes, rules and neighbours of one namespace."""
