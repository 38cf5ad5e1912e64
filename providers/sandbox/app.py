"""The HTTP server: faces and admin on one port, and the loop that keeps machines in step with the clock."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import ipaddress
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterator

from aiohttp import web

from providers.sandbox.admin import Admin
from providers.sandbox.engine import Engine
from providers.sandbox.ledger import TENSORDOCK
from providers.sandbox.lowcodeapi import wire as lowcodeapi
from providers.sandbox.options import Options
from providers.sandbox.replies import json_reply
from providers.sandbox.ssh import Farm, new_host_key
from providers.sandbox.tensordock import wire as tensordock
from providers.sandbox.tensordock.errors import framework_error as tensordock_error
from providers.sandbox.tensordock.gateway import PREFIX as TENSORDOCK_PREFIX
from providers.sandbox.uploads import PREFIX
from providers.sandbox.vast import templates, wire
from providers.sandbox.vast.errors import framework_error

log = logging.getLogger("sandbox")
#: Wall seconds between two looks at the clock; boots and deadlines are late by at most this.
PULSE = 0.05
SUPERVISOR = "GPUBROKER_SUPERVISOR_PID"


class CannotStart(Exception):
    """The port or the data directory cannot be used; the text says which and why."""


@web.middleware
async def _framework(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Errors of the HTTP layer in the form of the vendor's framework; admin calls from this machine only."""
    if request.path.startswith("/_sandbox/") and not _is_local(request.remote):
        return json_reply({"error": "only from this machine"}, status=403)
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _refusal(request, error.status, request.path)
    except Exception:
        log.exception("unexpected error in %s %s", request.method, request.path)
        return _refusal(request, 500)


def _refusal(request: web.Request, status: int, detail: str = "") -> web.Response:
    if request.path.startswith(f"{TENSORDOCK_PREFIX}/"):
        return tensordock_error(status)
    return framework_error(request, status, detail)


def _is_local(remote: str | None) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(remote or "").is_loopback
    return False


def build(engine: Engine, farm: Farm) -> web.Application:
    app = web.Application(middlewares=[_framework], client_max_size=256 * 1024)
    wire.add_routes(app, engine, farm)
    lowcodeapi.add_routes(app, engine, farm)
    docks = tensordock.add_routes(app, engine, farm)

    def after_reset() -> None:
        templates.plant(engine)
        docks.reset()

    Admin(engine, farm, after_reset, {TENSORDOCK: docks}).add_routes(app)

    async def upload(request: web.Request) -> web.Response:
        text = engine.uploads.get(request.match_info["name"])
        return web.Response(status=404) if text is None else web.Response(text=text)

    app.router.add_get(PREFIX + r"{name:[0-9a-f]+}.log", upload)
    return app


async def _pulse(engine: Engine, farm: Farm) -> None:
    while True:
        try:
            engine.tick()
            await farm.sync()
        except Exception:
            log.exception("unexpected error beside the calls")
        await asyncio.sleep(PULSE)


async def _watch_supervisor(pid: int, stop: asyncio.Event) -> None:
    """A supervisor that was killed cannot stop its children: they watch it."""
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            log.info("supervisor %s is gone", pid)
            stop.set()
            return
        except PermissionError:
            pass
        await asyncio.sleep(1)


@contextlib.contextmanager
def _own_directory(options: Options) -> Iterator[None]:
    """Hold the data directory: two sandboxes over one ledger would rent each other's machines out."""
    try:
        options.data_dir.mkdir(parents=True, exist_ok=True)
        lock = (options.data_dir / "lock").open("w")
    except OSError as error:
        raise CannotStart(f"cannot write to the data directory {options.data_dir}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CannotStart(f"another sandbox uses the data directory {options.data_dir}") from error
        yield


async def run(options: Options, stop: asyncio.Event, started: Callable[[str], None] | None = None) -> None:
    """Serve until ``stop`` is set. ``started`` is told the base URL."""
    with _own_directory(options):
        await _run(options, stop, started)


async def _run(options: Options, stop: asyncio.Event, started: Callable[[str], None] | None) -> None:
    engine = Engine(options, new_host_key)
    templates.plant(engine)
    farm = Farm(engine)
    runner = web.AppRunner(build(engine, farm), access_log=None, handle_signals=False, shutdown_timeout=0.5)
    await runner.setup()
    background: list[asyncio.Task[None]] = []
    try:
        site = web.TCPSite(runner, options.host, options.port, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise CannotStart(f"cannot listen on {options.host}:{options.port}: {reason}") from error
        await farm.sync()
        background.append(asyncio.create_task(_pulse(engine, farm)))
        if os.environ.get(SUPERVISOR, "").isdigit():
            background.append(asyncio.create_task(_watch_supervisor(int(os.environ[SUPERVISOR]), stop)))
        port = runner.addresses[0][1]
        gc.collect()
        gc.freeze()
        log.info("%s offers, %s machines running, listening", len(engine.market.asks), len(engine.ledger.live))
        if started:
            started(f"http://{options.host}:{port}")
        await stop.wait()
    finally:
        for task in background:
            task.cancel()
        farm.close()
        await runner.cleanup()
        engine.close()


async def serve_until_signalled(options: Options, started: Callable[[str], None] | None = None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run(options, stop, started)
