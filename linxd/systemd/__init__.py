# SPDX-License-Identifier: MIT
"""What systemd is told and what it tells: readiness, status, watchdog, journal, all by plain AF_UNIX
sockets.

Everything here does nothing where systemd does not run; no library is needed.
"""
