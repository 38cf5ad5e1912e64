"""One supervisor per data folder: two would run two worlds over one database."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gpubroker.failures import StartFailure


class DataDirLock:
    """Held from here until the process ends: the kernel lets go of it, also after SIGKILL."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "supervisor.lock"
        try:
            # Not inherited by children (PEP 446), so a child cannot keep it held.
            self.handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self.handle, 0)
            os.pwrite(self.handle, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.read(self.handle, 32).decode(errors="replace").strip()
            raise StartFailure(
                f"GPUBROKER_DATA_DIR={data_dir} is in use by a broker that is already running"
                f"{f' (pid {holder})' if holder else ''}: stop it first, or give this one another folder.",
                code=2,
            ) from None
        except OSError as error:
            raise StartFailure(
                f"GPUBROKER_DATA_DIR: cannot write {self.path}: {error.strerror or error}.", code=2
            ) from None
