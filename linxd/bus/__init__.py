# SPDX-License-Identifier: MIT
"""linxd on D-Bus: what a scope shows there and can be asked.

Nothing outside this package and the commands knows that there is a bus.
"""
