"""Base images on the workers: brought there once, checked by content, named by it, never changed.

A base image is `<base_dir>/base/<first 16 digits of its SHA-256>-<file name>`, read-only, with a small record
beside it. It comes from the manager's file; from a file with the same content that is on the worker already;
or, when the manager has none, from a file that was put on the worker by hand. Whatever the source, it is first
a copy under a name of ours, and becomes a base only after its content was read on the worker.

The work needs no lock on the host: a late or doubled message installs the same content under the same name.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import field
from typing import Any

from cloudrepo import base_image_plans as plans, base_image_removal
from cloudrepo.base_image_plans import Look, Source
from cloudrepo.checksums import Checksums
from cloudrepo.errors import CloudError, HostError, RefusedError, StepFailed
from cloudrepo.host import json_text
from cloudrepo.hosts import Executor
from cloudrepo.image_library import KnownImage
from cloudrepo.images import BaseImage, ImageStore, resolve
from cloudrepo.late_dataclass import dataclass
from cloudrepo.plan import Plan, PlanResult

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
DOCUMENTED_FOLDER = "/tmp/vm_images"  # noqa: S108 - files put there by hand are accepted, after checks
HEADROOM = 256 * 1024**2  # bytes that a copy leaves free


@dataclass
class BaseImages:
    """Brings base images to hosts. One object serves all threads of a process.

    Args:
        executor: who talks to hosts.
        installation: eight hex digits.
        cache_dir: a directory of this machine for digests and locks between processes; None = neither is kept.
        owner: account that owns base images; another than root only without root.
    """

    executor: Executor
    installation: str
    cache_dir: str | os.PathLike[str] | None = None
    owner: str = "root"
    _known: dict[tuple[str, str, str, str], BaseImage] = field(default_factory=dict, repr=False)
    _locks: dict[tuple[str, str], threading.Lock] = field(default_factory=dict, repr=False)
    _guard: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self._checksums = Checksums(self.cache_dir)

    def ensure(
        self,
        host: str,
        base_image_path: str,
        base_dir: str = "~/vm_images",
        *,
        progress: Progress | None = None,
        known: KnownImage | None = None,
    ) -> BaseImage:
        """The base image on a host; brought there when it is not. The first call for a host asks it, later ones do not.

        Args:
            host: the worker.
            base_image_path: the manager's file; when there is none, the name of a file put on the worker by hand,
                looked for in `base_dir`, at this very path, and in the documented folder.
            base_dir: the image folder on the worker; `~` is the login account's home there.
            progress: handed to the executor's upload.
            known: of an image that was inspected; nothing but that content is taken, from nowhere else.

        Raises:
            RefusedError: neither side has the image, it cannot be used as a base, or the disk is full.
            HostError: the host does not answer, or the copy arrived with another content twice.
        """
        home, images_home = self.executor.home(host), self.executor.images_home(host)
        store = self._store(host, base_dir)
        local, digest = self._of_manager(base_image_path)
        if known is not None and digest != known.sha256:
            raise _not_inspected(base_image_path, digest)
        key = (host, store.base_dir, base_image_path, digest)
        with self._one_at_a_time(host, f"{store.base_dir}|{digest or base_image_path}"):
            if key not in self._known:
                told = known.format if known is not None else ""
                candidates = _candidates(store, home, base_image_path)
                if images_home != home:  # root does not look around where an account could lead it astray
                    candidates = tuple(place for place in candidates if place == _in_folder(store, base_image_path))
                bringing = _Bringing(
                    self.executor, host, store, home, base_image_path, local, digest, progress, candidates, told
                )
                self._known[key] = bringing.run()
            return self._known[key]

    def ensure_everywhere(
        self, hosts: Iterable[str], base_image_path: str, base_dir: str = "~/vm_images", **options: Any
    ) -> dict[str, BaseImage | CloudError]:
        """`ensure` on many hosts at once; an error is returned in its host's place."""

        def one(host: str) -> BaseImage | CloudError:
            try:
                return self.ensure(host, base_image_path, base_dir, **options)
            except CloudError as error:
                return error

        names = list(dict.fromkeys(hosts))
        with ThreadPoolExecutor(max_workers=max(1, min(32, len(names)))) as pool:
            return dict(zip(names, pool.map(one, names), strict=True))

    def copies(self, host: str, base_dir: str) -> frozenset[str]:
        """The paths of all base images on a host; `path_on` says which one is a certain image's.

        Raises:
            HostError: it does not answer.
        """
        return base_image_removal.copies(self.executor, host, self._store(host, base_dir))

    def digest(self, path: str) -> str:
        """The SHA-256 of a file of the manager.

        Raises:
            RefusedError: it cannot be read.
        """
        return self._of_manager(path)[1]

    def path_on(self, host: str, base_dir: str, sha256: str, name: str) -> str:
        """Where the copy of an image of the manager is on a host, if it is there."""
        return plans.base_path(self._store(host, base_dir), sha256, name)

    def remove(self, host: str, base_dir: str, sha256: str, name: str) -> str:
        """Remove a copy that this installation brought and no disk is on; see `base_image_removal.remove`.

        Raises:
            HostError: it does not answer, or did not do a step.
        """
        store = self._store(host, base_dir)
        with self._one_at_a_time(host, f"{store.base_dir}|{sha256}"):
            self.forget(host)
            return base_image_removal.remove(self.executor, host, store, sha256, name)

    def why_stays(self, host: str, base_dir: str, sha256: str, name: str) -> str:
        """Look what `remove` would say; empty = it would remove the copy. See `base_image_removal.why_stays`.

        Raises:
            HostError: it does not answer.
        """
        return base_image_removal.why_stays(self.executor, host, self._store(host, base_dir), sha256, name)

    def disks_on(self, host: str, base_dir: str, path: str) -> list[base_image_removal.DiskOn]:
        """The disks of all installations on a host that are on a base image, or may be.

        Raises:
            HostError: it does not answer.
        """
        return base_image_removal.disks_on(self.executor, host, self._store(host, base_dir), path)

    def replace(self, host: str, base_image_path: str, base_dir: str, *, known: KnownImage | None = None) -> BaseImage:
        """Put the manager's file in the place of its copy on a host, whose content is not what its name says.

        The new one is beside it until its content was read there; one rename then changes them. What dies on the way
        leaves the old copy, and what arrived of the new one, which the next attempt goes on from. A disk that is begun
        on the old copy meanwhile is on the new one afterwards. `known` as in `ensure`.

        Raises:
            RefusedError: the manager has no such file or not what was inspected, disks are on the copy, or the disk is
                full.
            HostError: the host does not answer, or the file arrived with another content twice.
        """
        home, store = self.executor.home(host), self._store(host, base_dir)
        local, digest = self._of_manager(base_image_path)
        if not digest:
            raise RefusedError(
                f"the base image {base_image_path} is not on this machine",
                remedy=f"Put it at {base_image_path}",
                code="images.missing",
            )
        if known is not None and digest != known.sha256:
            raise _not_inspected(base_image_path, digest)
        with self._one_at_a_time(host, f"{store.base_dir}|{digest}"):
            self.forget(host)
            path = plans.base_path(store, digest, os.path.basename(base_image_path))
            if base_image_removal.disks_on(self.executor, host, store, path):
                raise RefusedError(f"{host}: {path} stays: disks are on it", code="images.used")
            told = known.format if known is not None else ""
            return _Bringing(self.executor, host, store, home, base_image_path, local, digest, None, (), told).again()

    def forget(self, host: str) -> None:
        """Ask the host again next time: it was reinstalled, or a base image is gone."""
        for key in [key for key in list(self._known) if key[0] == host]:
            self._known.pop(key, None)

    def _store(self, host: str, base_dir: str) -> ImageStore:
        home = self.executor.images_home(host)
        return ImageStore(base_dir=resolve(base_dir, home), installation=self.installation, owner=self.owner)

    def _of_manager(self, base_image_path: str) -> tuple[str, str]:
        """The manager's file and its digest; two empty texts when it has none."""
        local = os.path.expanduser(base_image_path)
        try:
            if not stat.S_ISREG(os.stat(local).st_mode):
                raise RefusedError(f"the base image {local} is not a regular file", code="images.base")
            return local, self._checksums.of(local)
        except (FileNotFoundError, NotADirectoryError):
            return "", ""
        except OSError as error:
            raise RefusedError(
                f"the base image {local} cannot be read",
                evidence=error.strerror or str(error),
                remedy=f"Give this account the right to read it: chmod a+r {local}",
                code="images.base",
            ) from error

    @contextmanager
    def _one_at_a_time(self, host: str, what: str) -> Iterator[None]:
        """Keep other threads, and other processes that share `cache_dir`, from copying the same to the same host."""
        with self._guard:
            lock = self._locks.setdefault((host, what), threading.Lock())
        with lock:
            if self.cache_dir is None:
                yield
                return
            import fcntl

            name = hashlib.sha256(f"{host}|{what}".encode()).hexdigest()[:16]
            os.makedirs(self.cache_dir, mode=0o700, exist_ok=True)
            with open(os.path.join(self.cache_dir, f"copy-{name}.lock"), "w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield


class _Bringing:
    """One base image on its way to one host."""

    def __init__(
        self,
        executor: Executor,
        host: str,
        store: ImageStore,
        home: str,
        base_image_path: str,
        local: str,
        digest: str,
        progress: Progress | None,
        candidates: tuple[str, ...],
        told: str = "",
    ) -> None:
        self.executor = executor
        self.host = host
        self.store = store
        self.home = home
        self.wanted = base_image_path
        self.local = local
        self.digest = digest
        self.progress = progress
        self.told = told
        self.name = os.path.basename(base_image_path)
        self.candidates = candidates

    def run(self) -> BaseImage:
        look = self._look()
        if look.trusted is not None:
            return look.trusted
        self._run(plans.prepare(self.store, look), "prepare the image folder")
        if not self.digest:
            return self._from_worker(look)
        same_size = [source for source in look.sources if source.size == os.path.getsize(self.local)]
        for source in same_size:
            image = self._from_copy(look, source)
            if image is not None:
                return image
        return self._from_manager(look)

    def again(self) -> BaseImage:
        """From the manager, whatever is there."""
        look = self._look()
        self._run(plans.prepare(self.store, look), "prepare the image folder")
        return self._from_manager(look)

    def _look(self) -> Look:
        plan = plans.look(self.store, self.home, self.name, self.digest, self.candidates)
        result = self.executor.run_plan(self.host, plan)
        try:
            return plans.read_look(self.store, self.name, self.digest, self.candidates, result.observed)
        except json_text.NOT_UNDERSTOOD as error:
            raise HostError(self.host, "could not look at the image folder", evidence=str(error)) from error

    # -- the three sources -------------------------------------------------------------------------------

    def _from_manager(self, look: Look) -> BaseImage:
        size = os.path.getsize(self.local)
        draft = plans.draft_path(self.store, self.digest)
        self._require_room(look, size - look.cut_size)
        for is_last in (False, True):
            log.info("%s: copying base image %s (%d MB)", self.host, self.local, size // 1_000_000)
            self.executor.upload(
                self.host,
                self.local,
                draft,
                installation=self.store.installation,
                progress=self.progress,
                resume=not is_last,
            )
            found = self._inspect(look, draft, size)
            if found.sha256 == self.digest:
                self._refuse_unfit(found, self.local)
                return self._install(look, found, "manager")
            log.warning("%s: the copy of %s has another content; it is removed", self.host, self.local)
            self._run(plans.drop(self.store, draft), "remove a damaged copy")
        raise StepFailed(
            self.host,
            f"the base image {self.local} arrived with another content, twice",
            evidence=f"SHA-256 {found.sha256 or 'unknown'} instead of {self.digest}",
            remedy="Check the disk of the worker, and that nobody is writing the file",
            code="images.content",
        )

    def _from_copy(self, look: Look, source: Source) -> BaseImage | None:
        """A file on the worker that may have the wanted content; None when it has not."""
        draft = plans.draft_path(self.store, self.digest, source.path)
        try:
            found = self._copy(look, source, draft)
        except CloudError as error:
            log.info("%s: %s is not used: %s", self.host, source.path, error)
            return None
        if found.sha256 != self.digest:
            self._run(plans.drop(self.store, draft), "remove a copy")
            return None
        self._refuse_unfit(found, source.path)
        return self._install(look, found, "manager")

    def _from_worker(self, look: Look) -> BaseImage:
        if not look.sources:
            raise self._nowhere(look)
        refused: list[str] = []
        for source in look.sources:
            found = self._copy(look, source, plans.draft_path(self.store, "", source.path))
            unfit = plans.unfit(found) or self._damage(look, found)
            if not unfit:
                log.warning("%s: the manager has no %s; using %s of the worker", self.host, self.wanted, source.path)
                return self._install(look, found, source.path, source)
            self._run(plans.drop(self.store, found.path), "remove a copy")
            refused.append(f"{source.path}: {unfit}")
        raise RefusedError(
            f"{self.host}: no file on the worker can be the base image {self.wanted}",
            evidence="; ".join(refused),
            remedy=f"Put a sound image at {self.wanted} on the manager",
            code="images.base",
        )

    def _nowhere(self, look: Look) -> RefusedError:
        places = ", ".join(self.candidates)
        text = f"{self.host}: the base image is missing: neither the manager has {self.wanted}, nor the worker {places}"
        return RefusedError(
            text,
            evidence="; ".join(look.refused),
            remedy=f"Put the image at {self.wanted} on the manager",
            code="images.missing",
            details={"host": self.host, "manager": self.wanted, "worker": list(self.candidates)},
        )

    # -- pieces ------------------------------------------------------------------------------------------

    def _copy(self, look: Look, source: Source, draft: str) -> plans.Found:
        self._require_room(look, source.size)
        self._run(plans.copy(self.store, source, draft, look.user), f"copy {source.path}")
        return self._inspect(look, draft, source.size)

    def _inspect(self, look: Look, draft: str, size: int) -> plans.Found:
        plan = plans.inspect(self.store, draft, size, look.user, self.told)
        result = self.executor.run_plan(self.host, plan)
        return plans.read_inspection(draft, result.observed)

    def _damage(self, look: Look, found: plans.Found) -> str:
        if found.info is None or found.info.format != "qcow2":
            return ""
        return plans.read_check(
            found, self.executor.run_plan(self.host, plans.check(self.store, found, look.user)).observed
        )

    def _refuse_unfit(self, found: plans.Found, origin: str) -> None:
        unfit = plans.unfit(found)
        if unfit:
            self._run(plans.drop(self.store, found.path), "remove a copy")
            raise RefusedError(f"{origin} cannot be a base image", evidence=unfit, code="images.base")

    def _install(self, look: Look, found: plans.Found, origin: str, source: Source | None = None) -> BaseImage:
        image = plans.image_of(self.store, self.name, found, origin)
        plan = plans.install(self.store, found, image, source, has_record=image == look.recorded)
        self._run(plan, f"install {image.path_on_host}")
        log.info("%s: base image %s is ready", self.host, image.path_on_host)
        return image

    def _require_room(self, look: Look, size: int) -> None:
        if look.free is not None and look.free < size + HEADROOM:
            raise RefusedError(
                f"{self.host}: no room for the base image {self.name}",
                evidence=f"{size // 1_000_000} MB needed, {look.free // 1_000_000} MB free in {self.store.base_dir}",
                remedy="Delete VMs or files there, or set images.base_dir to a larger disk",
                code="images.full",
            )

    def _run(self, plan: Plan, what: str) -> PlanResult:
        result = self.executor.run_plan(self.host, plan)
        if not result.ok:
            failed = result.failed
            words = (failed.err or failed.out).strip()[-500:] if failed else result.aborted
            raise StepFailed(self.host, f"could not {what}", evidence=words, details={"step": failed and failed.name})
        return result


def _not_inspected(path: str, digest: str) -> RefusedError:
    return RefusedError(
        f"the image {path} cannot be used",
        evidence="it is not what was inspected when it was added" if digest else "it is gone",
        remedy="Remove it and add it again: `./cloud image remove NAME`, `./cloud image add FILE`",
        code="images.changed",
    )


def _candidates(store: ImageStore, home: str, base_image_path: str) -> tuple[str, ...]:
    """Where a file put on the worker by hand may be: the image folder, the very path, the documented folder."""
    name = os.path.basename(base_image_path)
    if not name:
        raise RefusedError(f"{base_image_path!r} does not name a base image", code="images.base")
    places = [_in_folder(store, base_image_path)]
    for place in (base_image_path, f"{DOCUMENTED_FOLDER}/{name}"):
        try:
            places.append(resolve(place, home))
        except RefusedError:
            continue  # a relative path means a place on the manager only
    return tuple(dict.fromkeys(places))


def _in_folder(store: ImageStore, base_image_path: str) -> str:
    """Where a file put on the worker by hand belongs."""
    return f"{store.base_dir}/{os.path.basename(base_image_path)}"
