# SPDX-License-Identifier: MIT
"""The commands: `linxd`, the daemon, and `linxctl`, for people.

They print and they exit; what they do is done elsewhere.
"""
