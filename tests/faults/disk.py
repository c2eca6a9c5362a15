"""A small filesystem in memory, in a mount namespace of its own; none where the kernel lets this user make none."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


@dataclass
class Disk:
    """A filesystem of a size, at `folder` for whoever enters the namespace of `holder`."""

    folder: Path
    holder: subprocess.Popen[bytes]

    @property
    def entering(self) -> tuple[str, ...]:
        """What leads a command that is to see the disk."""
        return ("nsenter", f"--target={self.holder.pid}", "--user", "--mount", "--preserve-credentials", "--")

    def resize(self, kib: int) -> None:
        """More room, or less."""
        self.run("mount", "-o", f"remount,size={kib}k", str(self.folder))

    def run(self, *command: str) -> str:
        """What a command that sees the disk says."""
        return subprocess.run([*self.entering, *command], check=True, capture_output=True, text=True).stdout

    def keep(self) -> None:
        """Copy what is on the disk to the folder under it, which is there when the disk is gone."""
        kept = self.folder.with_name("kept")
        self.run("cp", "-a", str(self.folder), str(kept))
        shutil.rmtree(self.folder)
        kept.rename(self.folder)


@contextmanager
def small_disk(folder: Path, kib: int = 64) -> Iterator[Disk | None]:
    """A disk at `folder`, which is made."""
    folder.mkdir()
    script = f'mount -t tmpfs -o size={kib}k tmpfs "$0" && echo ready && read _'
    holder = subprocess.Popen(
        [*NAMESPACE, "sh", "-c", script, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert holder.stdout is not None
    is_there = holder.stdout.readline() == b"ready\n"
    try:
        yield Disk(folder, holder) if is_there else None
    finally:
        holder.communicate()
