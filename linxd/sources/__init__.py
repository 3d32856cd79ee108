# SPDX-License-Identifier: MIT
"""The sources: one package for each kernel subsystem. None of them knows a loop, D-Bus or systemd."""
