"""Where a file lies, as far as that matters to SQLite: on a network, or in a synced folder."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["file_system", "is_network", "synced_by"]

_NETWORK = {
    *("9p", "afs", "beegfs", "ceph", "cifs", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs"),
    *("nfs", "nfs4", "smb3", "smbfs", "vboxsf", "virtiofs"),
    *("fuse.davfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
}
_SYNCED = re.compile(
    r"(Dropbox|OneDrive|Google ?Drive|My Drive|Mobile Documents|CloudStorage|iCloud ?Drive"
    r"|Nextcloud|ownCloud|pCloud ?Drive|Syncthing|Box Sync)\b",
    re.IGNORECASE,
)
_MOUNTS = Path("/proc/self/mountinfo")


def file_system(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """The type of the file system of *path*, such as ``ext4``; None if the system doesn't tell."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    found = None
    deepest = -1
    whole = path.resolve()
    for line in lines:
        place, _, kind = line.partition(" - ")  # see proc_pid_mountinfo(5)
        mount = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), place.split(" ")[4]))
        if whole.is_relative_to(mount) and len(mount.parts) >= deepest:
            found, deepest = kind.split(" ")[0], len(mount.parts)
    return found


def is_network(path: Path, system: str | None) -> bool:
    """Whether *path*, on a file system of type *system*, is on another machine."""
    return system in _NETWORK or path.absolute().as_posix().startswith("//")


def synced_by(path: Path) -> str | None:
    """The folder on the way to *path* that a program like Dropbox syncs; None if none does."""
    return next((part for part in path.resolve().parts[:-1] if _SYNCED.match(part)), None)
