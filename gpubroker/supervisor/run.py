"""The life of the stack: start in order, watch, start again what dies, and end in good order.

One thread and one ``select``: children's output, their deaths and our signals all wake the same loop.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterable

from gpubroker.failures import StartFailure
from gpubroker.supervisor import banner, ports, ready
from gpubroker.supervisor import facts as facts_module
from gpubroker.supervisor import stack as stack_module
from gpubroker.supervisor.child import Child, Spec, how_it_ended
from gpubroker.supervisor.facts import Facts
from gpubroker.supervisor.lock import DataDirLock
from gpubroker.supervisor.output import LogFile, Terminal

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: How long the servers may take to answer at all.
SERVER_START_SECONDS = 15.0
#: A child that dies so often before the first answer never will come up.
DEATHS_BEFORE_READY = 4
#: When to tell a person that this takes longer than it should.
SLOW_START_SECONDS = 20.0
#: How long to wait for the first offers, once it serves, before the banner that offers a session.
OFFERS_SECONDS = 15.0
SETTINGS_EXIT = 2
NO_SPACE = ("disk is full", "No space left", "disk I/O error", "File too large")


class Stopped(Exception):
    """A signal asked us to end."""


class Supervisor:
    def __init__(self, facts: Facts, began_at: float) -> None:
        self.facts = facts
        self.began_at = began_at
        self.terminal = Terminal()
        self.children: dict[str, Child] = {}
        self.selector = selectors.DefaultSelector()
        self.ready = False
        self.slow_said = False
        self.next_ready_check = 0.0
        self.serves_since: float | None = None
        #: What a first start made; forgotten once it was shown.
        self.made = banner.Made()
        #: When each signal that asks us to end came.
        self.signals: list[float] = []

    # --- start ------------------------------------------------------------------------------

    def run(self) -> int:
        lock = DataDirLock(self.facts.data_path)  # held until this process ends
        ports.require_free(self.facts.host, self.facts.port)
        self.terminal.log = self._log("supervisor")
        self.terminal.note(f"starting, pid {os.getpid()}, lock {lock.path}")
        self._catch_signals()
        try:
            self._start()
            while True:
                self._turn()
                self._restart_the_dead()
                if not self.ready:
                    self._look_whether_ready()
        except StartFailure as failure:
            self.terminal.note(str(failure))
            raise
        except Stopped:
            self.terminal.say("Stopping; rented machines keep running.")
            return 0
        finally:
            self._stop()

    def _start(self) -> None:
        for name in self.facts.unknown:
            self.terminal.say(f"Warning: {name} is set, but no such setting exists; is it misspelt?")
        try:
            stack = stack_module.plan(self.facts)
            self.terminal.say("Starting the broker ...")
            self._add(stack.servers)
            if stack.queue is not None:
                self._wait_for("queue", stack.queue.answers)
            self._prepare(stack.environment)
            self._add(stack.roles)
        except OSError as error:
            raise StartFailure(f"cannot start: {error.strerror or error}: {error.filename or 'a child'}.") from error

    def _log(self, name: str) -> LogFile:
        return LogFile(self.facts.data_path / "log", name)

    def _add(self, specs: Iterable[Spec]) -> None:
        for spec in specs:
            child = self.children[spec.name] = Child(spec, self._log(spec.name), self.terminal)
            self._start_child(child)

    def _start_child(self, child: Child) -> None:
        child.start()
        if child.output is not None:
            self.selector.register(child.output, selectors.EVENT_READ, child)

    def _wait_for(self, name: str, answers: Callable[[], bool]) -> None:
        child = self.children[name]
        until = time.monotonic() + SERVER_START_SECONDS
        while not answers():
            if not child.running or time.monotonic() > until:
                child.read()
                raise self._failure(name, child, "does not start")
            self._turn(longest=0.02)

    def _prepare(self, environment: dict[str, str]) -> None:
        """Migrations and the rest of the database's start, in a child that reports through a pipe."""
        reading, writing = os.pipe()
        command = [sys.executable, "-m", "gpubroker.supervisor.prepare", str(writing)]
        child = Child(Spec("database", command, environment, report_to=writing), self._log("database"), self.terminal)
        self.children["database"] = child
        with open(reading, "rb") as report:
            try:
                self._start_child(child)
            finally:
                os.close(writing)
            while child.running:
                self._turn()
            code = self._reap(child)
            del self.children["database"]
            if code != 0:
                raise self._failure("database", child, "cannot be prepared", code)
            self.made = banner.Made(**json.loads(report.read() or b"{}"))

    def _failure(self, name: str, child: Child, what: str, code: int | None = None) -> StartFailure:
        """The reason that the child gave last, as one sentence."""
        last = child.last_line
        if code == SETTINGS_EXIT:
            return StartFailure(last, code=SETTINGS_EXIT)
        if any(words in last for words in NO_SPACE):
            return StartFailure(
                f"GPUBROKER_DATA_DIR={self.facts.data_dir}: no space is left to write there ({name}: {last}); "
                "free some, or choose another folder."
            )
        return StartFailure(f"{name} {what}: {last or 'it gave no reason'} (details: {child.log.path}).")

    # --- one turn of the loop ---------------------------------------------------------------

    def _catch_signals(self) -> None:
        reading, writing = os.pipe()
        for end in (reading, writing):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self.selector.register(reading, selectors.EVENT_READ, None)
        self.wakeup = reading
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # wakes the loop

    def _on_signal(self, *_: object) -> None:
        self.signals.append(time.monotonic())

    def _turn(self, longest: float = 0.5) -> None:
        """Wait for news and take it in; leaves by ``Stopped`` when a signal came."""
        self._pump(longest)
        if self.signals:
            raise Stopped

    def _pump(self, longest: float) -> None:
        due = [child.due_at for child in self.children.values() if child.due_at is not None]
        pause = min([longest, *(max(at - time.monotonic(), 0.0) for at in due)])
        for key, _ in self.selector.select(pause):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wakeup, 4096)
            elif not key.data.read():
                self.selector.unregister(key.fd)

    def _reap(self, child: Child) -> int | None:
        """The exit code of a child that has ended since the last look."""
        output = child.output
        code = child.reap()
        if code is not None and output is not None:
            with contextlib.suppress(KeyError, ValueError):
                self.selector.unregister(output)
        return code

    def _restart_the_dead(self) -> None:
        for child in self.children.values():
            code = self._reap(child)
            if code is not None:
                self._lost(child, code)
            if child.due_at is not None and child.due_at <= time.monotonic():
                try:
                    self._start_child(child)
                except OSError as error:  # no memory, no process slots: later, perhaps
                    pause = child.plan_restart()
                    reason = error.strerror or str(error)
                    self.terminal.event(child.spec.name, f"cannot be started ({reason}); next try in {pause:.1f} s")

    def _lost(self, child: Child, code: int) -> None:
        name = child.spec.name
        if not self.ready and (code == SETTINGS_EXIT or child.deaths_in_a_row >= DEATHS_BEFORE_READY):
            raise self._failure(name, child, "does not stay up", code)
        pause = child.plan_restart()
        said = f", saying: {child.last_line[:300]}" if code > 0 and child.last_line else ""
        self.terminal.event(name, f"stopped ({how_it_ended(code)}){said}; it starts again in {pause:.1f} s")

    # --- ready ------------------------------------------------------------------------------

    def _look_whether_ready(self) -> None:
        now = time.monotonic()
        age = now - self.began_at
        if now < self.next_ready_check:
            return
        self.next_ready_check = now + 0.2
        if self.serves_since is None and ready.is_ready(self.facts):
            self.serves_since = now
        if self.serves_since is not None and self._offers_are_there(now - self.serves_since):
            self.ready = True
            banner.print_banner(self.terminal, self.facts, time.monotonic() - self.began_at, self.made)
            self.made = banner.Made()
        elif age > SLOW_START_SECONDS and self.serves_since is None and not self.slow_said:
            self.slow_said = True
            self.terminal.say(
                f"Not ready after {age:.0f} s, still trying. Warnings above, {self.facts.address}/health "
                f"and the logs in {self.facts.data_dir}/log say why."
            )

    def _offers_are_there(self, served: float) -> bool:
        """Or were waited for long enough: a real marketplace may be down, and that is no reason to say nothing."""
        return ready.has_offers(self.facts, self.made.api_key) or served > OFFERS_SECONDS

    # --- end --------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Ask in order, insist after each one's grace. A second signal ends the patience."""
        named = {name for group in stack_module.STOP_ORDER for name in group}
        others = tuple(name for name in self.children if name not in named)
        for group in (others, *stack_module.STOP_ORDER):
            members = [self.children[name] for name in group if name in self.children]
            for child in members:
                child.terminate()
            until = {id(child): time.monotonic() + child.spec.grace for child in members}
            while alive := [child for child in members if child.running]:
                for child in alive:
                    if self._impatient or time.monotonic() > until[id(child)]:
                        self.terminal.note(f"{child.spec.name} did not stop in time and was killed")
                        child.kill()
                self._pump(longest=0.1)
            for child in members:
                child.due_at = None
                self._reap(child)
        self.terminal.note("stopped")

    @property
    def _impatient(self) -> bool:
        # One Ctrl-C may reach us twice, from the terminal and from `make`.
        return len(self.signals) > 1 and self.signals[-1] - self.signals[0] > 0.5


def run() -> int:
    """Read the settings, then live until a signal; the exit code."""
    began_at = time.monotonic()
    return Supervisor(facts_module.read(), began_at).run()
