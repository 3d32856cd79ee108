# SPDX-License-Identifier: MIT
"""What fails in the machine is said at once: of one that does not end there is nothing but its console."""

from __future__ import annotations

import os

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print why, beside the word that it did."""
    if os.environ.get("LINXD_PODMAN") and report.failed:
        print(f"\n{report.longreprtext[-3000:]}")
