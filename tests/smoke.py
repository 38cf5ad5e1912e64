"""``python -m tests.smoke``: the README's first session, word for word, against ``gpubroker run``.

Run by ``make smoke`` with only what ``make run`` installs: the suite's own environment has the development tools,
behind which a missing runtime dependency would hide.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.stack import ROOT, running

MUST_SAY = ("is running", "NVIDIA-SMI", '"message":"session destroyed"', '"total_cost":')


def first_session(port: int) -> str:
    script = re.findall(r"```sh\n(API=.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    return str(script).replace("http://127.0.0.1:8080", f"http://127.0.0.1:{port}")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="gpubroker-smoke-") as folder, running(Path(folder) / "data") as stack:
        print(f"ready after {stack.wait_ready():.1f} s")
        session = subprocess.run(
            ["bash", "-e", "-c", first_session(stack.port)], capture_output=True, text=True, timeout=120, check=False
        )
        print(session.stdout, session.stderr)
        missing = [text for text in MUST_SAY if text not in session.stdout]
        code = stack.stop()
        if session.returncode or missing or code:
            print(f"FAILED: exit codes {session.returncode} and {code}, did not say {missing}\n{stack.output()}")
            return 1
    print("1 passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
