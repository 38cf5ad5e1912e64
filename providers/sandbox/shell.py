"""A very small bash: the commands that brokers and curious people type on a fresh machine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from time import gmtime, strftime

from providers.sandbox.instances import Contract
from providers.sandbox.nvidia import gpus_of, nvidia_smi
from providers.sandbox.sockets import Socket, proc_net_tcp

_CHAIN = re.compile(r"(\s*(?:&&|\|\||;|\n)\s*)(?=(?:[^'\"]|'[^']*'|\"[^\"]*\")*$)")
_NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA "
    "driver is installed and running.\n\n"
)
_KEYS = ".ssh/authorized_keys"
_QUIET = re.compile(r"\s*(?:[12&]?>\s*/dev/null|2>&1)")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command printed and how it ended; ``leaves``: the shell is to be left."""

    out: str = ""
    err: str = ""
    code: int = 0
    leaves: bool = False


class Session:
    """One login: the machine as its commands see it."""

    def __init__(self, contract: Contract, now: float, keys: list[str], logins: int, user: str = "root") -> None:
        self._contract = contract
        self.user = user
        self.refresh(now, keys, logins)
        self._last = 0
        #: Everybody's connections to the machine's SSH, and the one that this login came in by.
        self.sockets: Sequence[Socket] = ()
        self.came_by: Socket | None = None
        #: How errors begin; a shell that somebody types in names no line.
        self.complaint = "bash: line 1: "

    def refresh(self, now: float, keys: list[str], logins: int) -> None:
        self._now, self._keys, self._logins = now, keys, logins

    @property
    def host(self) -> str:
        return self._contract.details.get("host") or f"C.{self._contract.id}"

    @property
    def home(self) -> str:
        return "/root" if self.user == "root" else f"/home/{self.user}"

    @property
    def prompt(self) -> str:
        return f"{self.user}@{self.host}:~{'#' if self.user == 'root' else '$'} "

    @property
    def greeting(self) -> str:
        return (
            "Welcome to the GPU Broker sandbox. This is not a real machine; nothing here costs money.\n"
            "Try: nvidia-smi, df -h, uptime, cat ~/.ssh/authorized_keys, exit\n"
        )

    def run(self, line: str) -> Answer:
        """A line: commands joined by ``;``, ``&&`` and ``||``."""
        parts = _CHAIN.split(line.strip())
        out, err, code = "", "", 0
        joint = ";"
        for place, part in enumerate(parts):
            if place % 2:
                joint = part.strip() or ";"
                continue
            if not part.strip() or (joint == "&&" and code) or (joint == "||" and not code):
                continue
            answer = self._quietly(part.strip())
            out, err, code = out + answer.out, err + answer.err, answer.code
            self._last = code
            if answer.leaves:
                return Answer(out, err, code, leaves=True)
        return Answer(out, err, code)

    def _quietly(self, command: str) -> Answer:
        """Honour redirections to nowhere."""
        answer = self._one(_QUIET.sub("", command))
        lost_out = re.search(r"(?:^|\s)(?:1|&)?>\s*/dev/null", command) is not None
        lost_err = re.search(r"(?:2|&)>\s*/dev/null", command) is not None
        return Answer("" if lost_out else answer.out, "" if lost_err else answer.err, answer.code, answer.leaves)

    def _one(self, command: str) -> Answer:
        try:
            words = shlex.split(command)
        except ValueError:
            return Answer(err="bash: -c: line 1: unexpected EOF while looking for matching quote\n", code=2)
        if not words:
            return Answer()
        name, arguments = words[0].rsplit("/", 1)[-1], words[1:]
        if name in ("sh", "bash") and len(arguments) >= 2 and arguments[0] in ("-c", "-lc"):
            return self.run(arguments[1])
        handler = getattr(self, f"_do_{name.replace('-', '_')}", None)
        if handler is None:
            return Answer(err=f"{self.complaint}{words[0]}: command not found\n", code=127)
        answer: Answer = handler(arguments)
        return answer

    # -- the commands --------------------------------------------------------------------------------

    def _do_true(self, _: list[str]) -> Answer:
        return Answer()

    def _do_false(self, _: list[str]) -> Answer:
        return Answer(code=1)

    def _do_echo(self, arguments: list[str]) -> Answer:
        newline = "" if arguments[:1] == ["-n"] else "\n"
        words = arguments[1:] if arguments[:1] == ["-n"] else arguments
        text = " ".join(words).replace("$?", str(self._last)).replace("$HOME", self.home).replace("$USER", self.user)
        text = text.replace("$SSH_CONNECTION", self.came_by.in_environment() if self.came_by else "")
        return Answer(text.replace("$CONTAINER_ID", str(self._contract.id)) + newline)

    def _do_exit(self, arguments: list[str]) -> Answer:
        code = int(arguments[0]) % 256 if arguments and arguments[0].isdigit() else self._last
        return Answer(code=code, leaves=True)

    def _do_logout(self, arguments: list[str]) -> Answer:
        return self._do_exit(arguments)

    def _do_nvidia_smi(self, arguments: list[str]) -> Answer:
        if not self._contract.num_gpus:
            return Answer(err=f"{self.complaint}nvidia-smi: command not found\n", code=127)
        driver = self._contract.quirks.get("no_driver", {"rebooted": True})
        if driver.get("mode", "none") == "none" and "rebooted" not in driver:
            return Answer(err=f"{self.complaint}nvidia-smi: command not found\n", code=127)
        if driver.get("mode") == "half" or "rebooted" not in driver:
            return Answer(_NO_DRIVER, code=9)
        out, code = nvidia_smi(arguments, gpus_of(self._contract), self._now)
        return Answer(out, code=code)

    def _do_reboot(self, _: list[str]) -> Answer:
        """Enough of it for a driver that waits for it; the machine is back before anybody notices."""
        if self.user != "root":
            return Answer(err="Call to Reboot failed: Interactive authentication required.\n", code=1)
        if self._contract.quirks.get("no_driver", {}).get("mode") == "reboot":
            self._contract.quirks["no_driver"]["rebooted"] = True
        return Answer(leaves=True)

    def _do_sudo(self, arguments: list[str]) -> Answer:
        """Without a password, as the images have it."""
        words = [word for word in arguments if word not in ("-n", "-E", "-H", "--")]
        before, self.user = self.user, "root"
        try:
            return self._one(shlex.join(words))
        finally:
            self.user = before

    def _do_hostname(self, _: list[str]) -> Answer:
        return Answer(f"{self.host}\n")

    def _do_whoami(self, _: list[str]) -> Answer:
        return Answer(f"{self.user}\n")

    def _do_id(self, arguments: list[str]) -> Answer:
        number = 0 if self.user == "root" else 1000
        if arguments[:1] == ["-u"]:
            return Answer(f"{number}\n")
        return Answer(" ".join(f"{kind}={number}({self.user})" for kind in ("uid", "gid", "groups")) + "\n")

    def _do_pwd(self, _: list[str]) -> Answer:
        return Answer(f"{self.home}\n")

    def _do_uname(self, arguments: list[str]) -> Answer:
        return Answer(f"Linux {self.host} 5.15.0-125-generic x86_64 GNU/Linux\n" if "-a" in arguments else "Linux\n")

    def _do_uptime(self, _: list[str]) -> Answer:
        minutes = max(0, int((self._now - self._contract.boot_done_at) // 60))
        since = f"{minutes} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}"
        clock = strftime("%H:%M:%S", gmtime(self._now))
        users = "user" if self._logins == 1 else "users"
        load = float(self._contract.load.get("utilization", 0.0)) / 25
        return Answer(
            f" {clock} up {since},  {self._logins} {users},  load average: {load:.2f}, {load:.2f}, {load:.2f}\n"
        )

    def _do_who(self, _: list[str]) -> Answer:
        when = strftime("%Y-%m-%d %H:%M", gmtime(self._now))
        return Answer("".join(f"{self.user:<8} pts/{n}        {when} (127.0.0.1)\n" for n in range(self._logins)))

    def _do_df(self, _: list[str]) -> Answer:
        size = self._contract.disk
        used = min(1.3, size / 2)
        return Answer(
            "Filesystem      Size  Used Avail Use% Mounted on\n"
            f"overlay         {size:>3.0f}G  {used:.1f}G {size - used:>4.0f}G {used / size * 100:>3.0f}% /\n"
            "tmpfs            64M     0   64M   0% /dev\n"
            "shm              16G     0   16G   0% /dev/shm\n"
        )

    def _do_grep(self, arguments: list[str]) -> Answer:
        """Lines of files, or with ``-l`` the names of those that have such a line."""
        flags = "".join(word[1:] for word in arguments if word.startswith("-"))
        pattern, *names = [word for word in arguments if not word.startswith("-")] or [""]
        out, err = "", ""
        for name in names:
            answer = self._do_cat([name])
            found = [line for line in answer.out.splitlines() if re.search(pattern, line)]
            out += "".join(f"{line}\n" for line in ([name] if "l" in flags and found else found))
            err += "" if "s" in flags else answer.err.replace("cat:", "grep:")
        return Answer(out, err, 2 if err else 0 if out else 1)

    def _do_cat(self, arguments: list[str]) -> Answer:
        out, err = "", ""
        for name in arguments:
            if name in (f"~/{_KEYS}", f"{self.home}/{_KEYS}", _KEYS):
                out += "".join(f"{key.strip()}\n" for key in self._keys)
            elif name in self._contract.details.get("files", {}):
                out += self._contract.details["files"][name]
            elif name == "/proc/net/tcp":
                out += proc_net_tcp(self.sockets)
            elif name == "/etc/hostname":
                out += f"{self.host}\n"
            else:
                err += f"cat: {name}: No such file or directory\n"
        return Answer(out, err, 1 if err else 0)
