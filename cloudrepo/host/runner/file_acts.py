"""The acts that change files and directories."""

from __future__ import annotations

import errno
import os
import stat

from cloudrepo.host.runner.accounts import give
from cloudrepo.host.runner.base import DONE
from cloudrepo.host.runner.files import is_same_file, read_text, remove_tree, write_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloudrepo.host.runner.base import Answer, Json

FICLONE = 0x40049409  # linux/fs.h: share the blocks of another file


def act_write(act: Json) -> Answer:
    """Write a file whole."""
    write_whole(act["path"], act["text"].encode(), act["mode"], act["user"], act["durable"])
    return DONE, "", ""


def act_read(act: Json) -> Answer:
    """Read a text file."""
    text = read_text(act["path"])
    return (1, "", "") if text is None else (DONE, text, "")


def act_mkdir(act: Json) -> Answer:
    """Make a directory; mode and owner are those of the last one."""
    for patience in range(20, -1, -1):
        try:
            os.makedirs(act["path"], 0o755, exist_ok=True)
            number = os.open(act["path"], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            break
        except FileNotFoundError:  # another slice's last machine here took the empty parent away meanwhile
            if not patience:
                raise
    try:
        give(number, act["user"])
        os.fchmod(number, act["mode"])
    finally:
        os.close(number)
    return DONE, "", ""


def act_remove(act: Json) -> Answer:
    """Remove exactly one thing, and only within a given directory."""
    name = os.path.basename(act["path"])
    path = os.path.join(os.path.realpath(os.path.dirname(act["path"])), name)
    within = os.path.realpath(act["within"])
    if name in ("", ".", "..") or within == "/" or not path.startswith(within + "/"):
        return 1, "", f"refused: {path} is not within {within}"
    try:
        is_directory = stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return DONE, "", ""
    if act["same_as"] and not is_same_file(path, act["same_as"]):
        return DONE, "", ""
    if not is_directory:
        os.unlink(path)
    elif act["tree"]:
        remove_tree(path)
    else:
        return 1, "", f"refused: {path} is a directory"
    return DONE, "", ""


def act_remove_if_empty(act: Json) -> Answer:
    """Remove a directory that others use too: what they put into it meanwhile stays, and they may be first."""
    try:
        os.rmdir(act["path"])
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
    return DONE, "", ""


def act_require(act: Json) -> Answer:
    """See that a file is there."""
    return (DONE, "", "") if os.path.isfile(act["path"]) else (1, "", f"there is no file {act['path']}")


def act_publish(act: Json) -> Answer:
    """Give a file its owner and mode, then a second name."""
    number = os.open(act["draft"], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        give(number, act["user"])
        os.fchmod(number, act["mode"])
    finally:
        os.close(number)
    try:
        os.link(act["draft"], act["path"], follow_symlinks=False)
    except FileExistsError:
        if not is_same_file(act["draft"], act["path"]):
            return 1, "", f"{act['path']} is there already"
    return DONE, "", ""


def act_adopt(act: Json) -> Answer:
    """Make a file of ours of a draft; what another account wrote is copied."""
    import pwd

    owner = pwd.getpwnam(act["owner"])
    draft = os.open(act["draft"], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    temporary = ""
    number = draft
    try:
        facts = os.fstat(draft)
        if not stat.S_ISREG(facts.st_mode):
            return 1, "", f"{act['draft']} is no regular file"
        if facts.st_uid != owner.pw_uid:
            temporary = f"{act['path']}.{os.getpid()}.new"
            number = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            found = copy_file(draft, number, facts.st_size)
            if found != act["sha256"]:
                os.unlink(temporary)
                return 1, "", f"{act['draft']} was changed: SHA-256 {found}, wanted {act['sha256']}"
        if os.fstat(number).st_uid != owner.pw_uid:
            os.fchown(number, owner.pw_uid, owner.pw_gid)
        os.fchmod(number, act["mode"])
        os.utime(number, (act["mtime_s"], act["mtime_s"]))
        os.fsync(number)
        os.rename(temporary or act["draft"], act["path"])
        if temporary:
            os.unlink(act["draft"])
    finally:
        os.close(draft)
        if temporary:
            os.close(number)
    return DONE, "", ""


def copy_file(source: int, target: int, size: int) -> str:
    """Copy an open file, holes as holes, and return the SHA-256 of what was copied, in hex."""
    import fcntl
    import hashlib

    digest = hashlib.sha256()
    try:
        fcntl.ioctl(target, FICLONE, source)
        is_shared = True
    except OSError:  # another file system, or one that shares no blocks
        is_shared = False
        os.ftruncate(target, size)
    place = 0
    while place < size:
        data = os.pread(target if is_shared else source, 1 << 20, place)
        if not data:
            break
        digest.update(data)
        if not is_shared and data.count(0) != len(data):
            view, at = memoryview(data), place
            while view:
                written = os.pwrite(target, view, at)
                view, at = view[written:], at + written
        place += len(data)
    return digest.hexdigest()
