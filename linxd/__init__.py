# SPDX-License-Identifier: MIT
"""Keeps the kernel's network state converged on what was declared."""

__version__ = "0.1.0"
