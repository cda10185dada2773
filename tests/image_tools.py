"""Pretended hosts with real files and the real runner, for tests of images and discovery."""

from __future__ import annotations

import getpass
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from cloudrepo.plan import Plan, PlanResult
from cloudrepo.transports.local import LocalHost, LocalTransport
from remote_executor import RemoteExecutor

INSTALLATION = "0a1b2c3d"
ME = getpass.getuser()


def require(*tools: str) -> None:
    """Skip without a tool, saying so; with CI=true that is a failure."""
    missing = [tool for tool in tools if shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin") is None]
    if not missing:
        return
    reason = f"not run, {', '.join(missing)} missing; run `./cloud test`, which installs what is missing"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def local_executor(**hosts: LocalHost) -> CountingExecutor:
    """An executor whose hosts are this machine. Names: `w1` is the host `w1`."""
    return CountingExecutor(transport=LocalTransport(hosts), remote_user=ME)


class CountingExecutor(RemoteExecutor):
    """Counts messages and bytes by host."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.plans: list[tuple[str, Plan]] = []
        self.sent: list[int] = []

    def run_plan(self, host: str, plan: Plan, **options: Any) -> PlanResult:
        self.plans.append((host, plan))
        return super().run_plan(host, plan, **options)

    def upload(self, host: str, local_path: Any, remote_path: str, **options: Any) -> Any:
        arrived = super().upload(host, local_path, remote_path, **options)
        self.sent.append(arrived.sent)
        return arrived


def script(directory: Path, name: str, body: str) -> None:
    """A stand-in for a program."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
