"""What a machine's first boot makes of its ``cloud_init`` (TensorDock contract, section 10).

``write_files`` comes first, when ``user`` and its home do not exist yet, and the vendor's own script writes root's
``authorized_keys`` anew after it: keys written that way are lost. ``runcmd`` comes last, as root: what it appends to
an ``authorized_keys`` stays. It is not run, only read for that.
"""

from __future__ import annotations

import re
from typing import Any

_KEY = re.compile(
    r"(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp\d+|sk-[\w-]+@openssh\.com) [A-Za-z0-9+/=]{32,}(?: [\w.@+:-]+)*"
)
_TARGET = re.compile(r"(>>?|tee(?: -a)?)\s*[\"']?(\S*?)\.ssh/authorized_keys")
_USERS = {"/root/": "root", "~/": "root", "$HOME/": "root", "${HOME}/": "root", "~root/": "root"}
_HOME = re.compile(r"(?:/home/|~)([a-z_][a-z0-9_-]*)/")


def files_of(cloud_init: dict[str, Any]) -> dict[str, str]:
    """What ``write_files`` leaves: plain contents (``encoding`` is not honoured), nothing below a home to come."""
    rows = [row for row in cloud_init.get("write_files", []) if isinstance(row, dict)]
    found = {str(row.get("path", "")): str(row.get("content", "")) for row in rows}
    return {path: text for path, text in found.items() if path and not path.endswith("/.ssh/authorized_keys")}


def keys_of(cloud_init: dict[str, Any]) -> dict[str, list[str]]:
    """The keys that ``runcmd`` installs, by user. Scripts that it starts from ``write_files`` count as part of it."""
    files = files_of(cloud_init)
    found: dict[str, list[str]] = {}
    for entry in cloud_init.get("runcmd", []):
        command = " ".join(map(str, entry)) if isinstance(entry, list) else str(entry)
        command += "".join(f"\n{text}" for path, text in files.items() if path in command)
        keys = _KEY.findall(command)
        for user in _users(command) if keys else ():
            found.setdefault(user, []).extend(key for key in keys if key not in found.get(user, []))
    return found


def _users(command: str) -> list[str]:
    """Whose ``authorized_keys`` the command writes; in a loop over homes, all that are named."""
    users: list[str] = []
    for _, folder in _TARGET.findall(command):
        home = _HOME.fullmatch(folder)
        if folder in _USERS:
            users.append(_USERS[folder])
        elif home:
            users.append(home[1])
        elif folder.startswith("$"):
            users += ["root"] if re.search(r"/root\b", command) else []
            users += re.findall(r"/home/([a-z_][a-z0-9_-]*)", command)
    return list(dict.fromkeys(users))
