"""What a machine that runs its image as it is answers on its published ports: a word of HTTP, whatever is asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

from providers.sandbox.instances import Contract

#: The longest a client may take to ask.
ASK_SECONDS = 10.0


async def listen(sock: socket.socket, contract: Contract) -> asyncio.Server:
    """Answer every request with 200 and what the machine was told to run, then close."""
    body = json.dumps({"image": contract.image, "args": contract.args}).encode()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ASK_SECONDS)
            writer.write(head.encode() + body)
            await writer.drain()
        writer.close()

    return await asyncio.start_server(serve, sock=sock)
