# SPDX-License-Identifier: MIT
"""The netfilter source: nftables tables kept on the kernel's own bytes."""
