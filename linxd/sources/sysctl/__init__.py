# SPDX-License-Identifier: MIT
"""The sysctl source: keys below /proc/sys, kept, explained and given back."""
