# SPDX-License-Identifier: MIT
"""The scope and its loops on D-Bus. Nothing here is needed for a loop to run."""
