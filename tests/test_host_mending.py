"""`doctor --fix` without hosts: nothing but what was agreed to, nothing twice, and no failure keeps the rest back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudrepo.doctor.findings import Finding, Level
from cloudrepo.errors import HostError
from control import host_doctor, host_mending, host_proofs
from control.host_doctor import Report
from control.host_images import WantedImage
from fakes.orchestrator import orchestrator
from test_doctor_hosts import SOUND, A

Room = tuple[Callable[..., dict[str, Any]], list[str]]


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    """Two images are to be copied; the second one can be, the first cannot. What was tried."""
    api = orchestrator(tmp_path)
    paths = [str(tmp_path / name) for name in ("one.img", "two.img")]
    images = [WantedImage(what="x", path=path, sha256="ab" * 32, size=1) for path in paths]
    tried: list[str] = []
    here: list[str] = []

    def look(context: Any, only: Any = (), wanted: Any = (), *, are_joined: bool = True) -> Report:
        missing = [
            Finding(code="hosts.image.missing", level=Level.WARNING, text=one.path, evidence=place(one), hosts=(A,))
            for one in images
            if one.path not in here
        ]
        return Report(findings=missing, hosts=[A], facts={A: SOUND}, images=images)

    def place(image: WantedImage) -> str:
        return host_proofs.place_on_host(api.context, SOUND, image)

    def ensure(ip: str, image: str, base_dir: str, *, known: Any) -> None:
        tried.append(image)
        if image == paths[0]:
            raise HostError(ip, "the disk is full")
        here.append(image)

    monkeypatch.setattr(host_doctor, "look", look)
    monkeypatch.setattr(api.deployment_api.qcow_manager.bases, "ensure", ensure)
    return lambda **more: host_mending.mend(api.context, **more), tried


def test_what_fails_is_told_of_once_and_the_rest_is_done(room: Room) -> None:
    mend, tried = room
    done = mend()
    assert len(tried) == 2 and [one["text"].split("/")[-1] for one in done["changed"]] == ["two.img"]
    assert [one["text"] for one in done["failed"]] == [f"{A}: the disk is full"]
    assert [one["text"] for one in done["fixes"]] == [f"copy {tried[0]}"]


def test_nothing_but_what_was_agreed_to_is_done(room: Room) -> None:
    mend, tried = room
    assert len(mend(agreed=[])["fixes"]) == 2 and tried == []
    second = mend(agreed=[])["fixes"][1]
    assert mend(agreed=[second])["changed"][0]["text"].endswith("two.img") and len(tried) == 1
