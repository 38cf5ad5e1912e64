"""A real SSH server for every running machine: its own host key, and for each user exactly the keys that are his."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable
from typing import TYPE_CHECKING

import asyncssh

from providers.sandbox import http
from providers.sandbox.engine import Engine
from providers.sandbox.instances import Contract
from providers.sandbox.shell import Session
from providers.sandbox.sockets import Socket

if TYPE_CHECKING:
    Process = asyncssh.SSHServerProcess[str]

#: The longest a client may take to log in.
LOGIN_SECONDS = 30
log = logging.getLogger("sandbox.ssh")
_BANNER = "OpenSSH_8.9p1 Ubuntu-3ubuntu0.10"


def new_host_key() -> str:
    return asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()


def key_body(text: str) -> str:
    """The part of a public key line that counts; comments do not."""
    words = text.split()
    return words[1] if len(words) > 1 else ""


def is_public_key(text: str) -> bool:
    try:
        asyncssh.import_public_key(text.strip())
    except (asyncssh.KeyImportError, ValueError):
        return False
    return True


class _Door(asyncssh.SSHServer):
    """Lets in who has a key that the machine has for him at this moment."""

    def __init__(self, farm: Farm, contract_id: int) -> None:
        self._farm = farm
        self._contract_id = contract_id
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._farm.connections.setdefault(self._contract_id, set()).add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection:
            self._farm.connections.get(self._contract_id, set()).discard(self._connection)

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return False

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        contract = self._farm.engine.ledger.live.get(self._contract_id)
        if contract is not None and "open_door" in contract.quirks:
            return True
        offered = key_body(key.export_public_key().decode())
        return any(key_body(text) == offered for text in self._farm.engine.authorized_keys(self._contract_id, username))


def _socket(connected: asyncssh.SSHServerConnection | Process) -> Socket:
    client, server = connected.get_extra_info("peername"), connected.get_extra_info("sockname")
    return Socket((client[0], client[1]), (server[0], server[1]))


class _Mute:
    """Takes connections (the kernel does) and never says a word."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.listen(16)

    def close(self) -> None:
        self._sock.close()


Server = asyncssh.SSHAcceptor | asyncio.Server | _Mute


class Farm:
    """All the machines' servers, kept in step with the contracts: SSH, or HTTP where the image runs as it is."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.connections: dict[int, set[asyncssh.SSHServerConnection]] = {}
        #: contract -> open interactive sessions, for ``who``
        self.logins: dict[int, int] = {}
        self._servers: dict[int, dict[int, Server]] = {}
        self._lock = asyncio.Lock()

    async def sync(self) -> None:
        """Open what should answer, close what should not."""
        async with self._lock:
            live = self.engine.ledger.live
            wanted = {c.id for c in live.values() if self.engine.answers(c)}
            for contract_id in [id_ for id_ in self._servers if id_ not in wanted]:
                self._close(contract_id)
            for contract_id in [id_ for id_ in wanted if id_ not in self._servers]:
                contract = live.get(contract_id)
                if contract:
                    await self._open(contract)

    def close_one(self, contract_id: int) -> None:
        """Nobody is connected to it any more; the next ``sync`` opens it where it then should answer."""
        self._close(contract_id)

    def close(self) -> None:
        for contract_id in list(self._servers):
            self._close(contract_id)

    def listening(self) -> dict[int, list[int]]:
        """Which ports answer, by contract."""
        return {contract_id: sorted(servers) for contract_id, servers in self._servers.items()}

    async def _open(self, contract: Contract) -> None:
        servers: dict[int, Server] = {}
        self._servers[contract.id] = servers
        for port in (*contract.ssh_ports, *contract.http_ports):
            self.engine.ports.hold(port, contract.address)
            sock = self.engine.ports.take(port, contract.address)
            if sock is None:
                log.warning("machine %s: port %s is taken by somebody else", contract.id, port)
                continue
            if "no_ssh" in contract.quirks:
                servers[port] = _Mute(sock)
                continue
            if port in contract.http_ports:
                servers[port] = await http.listen(sock, contract)
                continue
            servers[port] = await asyncssh.listen(
                sock=sock,
                server_factory=lambda: _Door(self, contract.id),
                process_factory=lambda process: self._serve(contract.id, process),
                server_host_keys=[asyncssh.import_private_key(contract.host_key)],
                server_version=_BANNER,
                allow_scp=False,
                agent_forwarding=False,
                x11_forwarding=False,
                login_timeout=LOGIN_SECONDS,
            )

    def _close(self, contract_id: int) -> None:
        for port, server in self._servers.pop(contract_id, {}).items():
            server.close()
            contract = self.engine.ledger.live.get(contract_id)
            if contract:
                self.engine.ports.hold(port, contract.address)
        for connection in self.connections.pop(contract_id, set()):
            connection.abort()

    def _serve(self, contract_id: int, process: Process) -> Awaitable[None] | None:
        contract = self.engine.ledger.live.get(contract_id)
        if contract is None:
            process.exit(255)
            return None
        user = str(process.get_extra_info("username"))
        keys = self.engine.authorized_keys(contract_id, user)
        session = Session(contract, self.engine.clock.now(), keys, self._count(contract_id), user)
        session.sockets = [_socket(connection) for connection in self.connections.get(contract_id, ())]
        session.came_by = _socket(process)
        if process.command is not None:
            answer = session.run(process.command)
            process.stdout.write(answer.out)
            process.stderr.write(answer.err)
            process.exit(answer.code)
            return None
        return self._converse(contract_id, session, process)

    def _count(self, contract_id: int) -> int:
        return self.logins.get(contract_id, 0)

    async def _converse(self, contract_id: int, session: Session, process: Process) -> None:
        """An interactive shell: a prompt, the same commands, ``exit``."""
        self.logins[contract_id] = self._count(contract_id) + 1
        session.complaint = "bash: "
        code = 0
        with contextlib.suppress(asyncssh.DisconnectError, BrokenPipeError, ConnectionError):
            try:
                code = await self._lines(contract_id, session, process)
            finally:
                self.logins[contract_id] = self._count(contract_id) - 1
        process.exit(code)

    async def _lines(self, contract_id: int, session: Session, process: Process) -> int:
        terminal = process.get_terminal_type() is not None
        prompt = session.prompt if terminal else ""
        process.stdout.write((session.greeting if terminal else "") + prompt)
        code = 0
        while True:
            try:
                line = await process.stdin.readline()
            except (asyncssh.BreakReceived, asyncssh.TerminalSizeChanged, asyncssh.SignalReceived):
                process.stdout.write("\n" + prompt)
                continue
            if not line:
                return code
            keys = self.engine.authorized_keys(contract_id, session.user)
            session.refresh(self.engine.clock.now(), keys, self._count(contract_id))
            answer = session.run(line)
            code = answer.code
            process.stdout.write(answer.out)
            (process.stdout if terminal else process.stderr).write(answer.err)
            if answer.leaves:
                return code
            process.stdout.write(prompt)
