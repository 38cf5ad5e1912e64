"""The marketplace itself, without any vendor's wire: rent, stop, start, destroy, and what time does meanwhile."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from providers.sandbox import billing
from providers.sandbox.clock import Clock, ScaledClock
from providers.sandbox.faults import FaultBook
from providers.sandbox.instances import REBOOT_SHARE, Contract, Phase, Span, hash_of, phase, will_run
from providers.sandbox.ledger import TENSORDOCK, Account, Key, Ledger
from providers.sandbox.limits import Limits
from providers.sandbox.market import Ask, Market
from providers.sandbox.options import Options, Settings
from providers.sandbox.orders import Order, draft
from providers.sandbox.ports import PortPool
from providers.sandbox.uploads import Uploads

FIRST_CONTRACT = 33_900_000


class Engine:
    """State and rules of one sandbox. Everything here is quick and synchronous; the event loop owns it."""

    def __init__(self, options: Options, new_host_key: Callable[[], str], clock: Clock | None = None) -> None:
        self.options = options
        self.settings = self._first_settings()
        self.ledger = Ledger(options.data_dir / "ledger.sqlite3")
        self.clock: Clock = clock or self._restored_clock()
        self.market = Market(self.ledger, options.seed, options.offers)
        self.faults = FaultBook()
        self.limits = Limits(self.limits_now)
        #: Calls that came too early, by vendor and operation; those that a fault refused are not among them.
        self.too_many: Counter[str] = Counter()
        #: Those that were let through.
        self.calls: Counter[str] = Counter()
        self.ports = PortPool(options.host)
        self.uploads = Uploads(self.clock)
        self.new_host_key = new_host_key
        self._churned_at = self.clock.now()
        self.open()

    # -- life of the sandbox -----------------------------------------------------------------------

    def open(self) -> None:
        """Accounts, market and reserved ports, as after a start or a reset."""
        now = self.clock.now()
        for key in self.options.api_keys:
            self.ledger.add_account(key, self.options.credit, now)
        for token in self.options.tensordock_tokens:
            self.ledger.add_account(token, self.options.credit, now, TENSORDOCK)
        self.market.open(now)
        for contract in self.ledger.live.values():
            self._hold_ports(contract)

    def close(self) -> None:
        self.ports.close()
        self.ledger.close()

    def reset(self) -> None:
        """Forget everything that happened. Ids are not used again."""
        self.ledger.forget_everything()
        self.ledger.set_meta("market", "")
        self.ports.close()
        self.faults.clear()
        self.limits.forget()
        self.too_many.clear()
        self.calls.clear()
        self.settings = self._first_settings()
        if isinstance(self.clock, ScaledClock):
            self.clock.restart()
            self._save_clock(self.clock)
        self.open()

    def _first_settings(self) -> Settings:
        given = self.options
        return Settings(given.boot_seconds, given.pace, given.key_delay, delete_seconds=given.delete_seconds)

    def _restored_clock(self) -> ScaledClock:
        """Sandbox time goes on as if the process had never been away, at the speed it now has."""
        clock = ScaledClock(speed=self.options.speed)
        saved = self.ledger.get_meta("clock")
        if saved:
            speed, wall, now = (float(part) for part in saved.split())
            clock = ScaledClock(speed=speed, anchor_wall=wall, anchor_now=now)
            clock.change_speed(self.options.speed)
        self._save_clock(clock)
        return clock

    def _save_clock(self, clock: Clock) -> None:
        if isinstance(clock, ScaledClock):
            self.ledger.set_meta("clock", f"{clock.speed!r} {clock.anchor_wall!r} {clock.anchor_now!r}")

    def limits_now(self) -> float:
        """The seconds by which calls are counted."""
        return self.clock.now() if self.settings.limits_clock == "sandbox" else time.monotonic()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self._save_clock(self.clock)
        self.tick()

    # -- renting -----------------------------------------------------------------------------------

    def rent(
        self, account: Account, ask: Ask, order: Order, quirks: dict[str, dict[str, Any]] | None = None
    ) -> Contract:
        """Make the contract on an offer. Whether the account may have it is the face's business."""
        contract = draft(
            order,
            ask,
            self.market.described(ask),
            ids=(account.id, self.next_contract_id()),
            now=self.clock.now(),
            ports=self.ports,
            host_key=self.new_host_key(),
        )
        keys = [key.text for key in self.ledger.account_keys(account.id)]
        return self.sign(contract, keys, quirks, start=order.start)

    def next_contract_id(self) -> int:
        return self.ledger.next_number("contract", FIRST_CONTRACT, 11)

    def sign(
        self, contract: Contract, keys: list[str], quirks: dict[str, dict[str, Any]] | None = None, start: bool = True
    ) -> Contract:
        """Put a drafted contract into the ledger, with its keys and what will be wrong with it, and boot it."""
        now = self.clock.now()
        contract.quirks.update(quirks or {})
        if "listing_lag" in contract.quirks:
            contract.visible_at = now + float(contract.quirks["listing_lag"].get("seconds", 5.0))
        for text in keys:
            self.ledger.add_instance_key(contract.id, text, now, now)
        if start:
            self._run(contract, now)
        self.ledger.save(contract)
        if start:
            self.market.deal(contract.machine_id)
        return contract

    def _hold_ports(self, contract: Contract) -> None:
        """Reserve the ports that a contract answers on again; one that somebody took meanwhile is replaced."""
        answering = {*contract.ssh_ports, *contract.http_ports}
        for inside, outside in contract.ports.items():
            held = outside not in answering or self.ports.hold(outside, contract.address)
            if not held and not contract.address:
                contract.ports[inside] = self.ports.reserve()
                self.ledger.save(contract)
        proxy = contract.answering_proxy
        if proxy and not self.ports.hold(proxy):
            contract.proxy_port = self.ports.reserve() - (proxy - contract.proxy_port)
            self.ledger.save(contract)

    # -- running -----------------------------------------------------------------------------------

    def _run(self, contract: Contract, now: float) -> None:
        """Boot it: the GPU is billed from when the boot is done, if it will be (or at once: ``bills_boot``)."""
        contract.intended = contract.current = "running"
        contract.holds_gpus = True
        contract.rival_bid = 0.0
        contract.halted = contract.note = None
        contract.boot_at, contract.boot_seconds, contract.boot_kind = now, self.settings.boot_seconds, "boot"
        if contract.bills_boot:
            contract.spans.append(Span("gpu", now, contract.gpu_rate))
        elif will_run(contract):
            contract.spans.append(Span("gpu", contract.boot_done_at, contract.gpu_rate))

    def start(self, contract: Contract) -> bool:
        """Start a stopped or dead machine; False: queued until its GPUs are free (or its bid wins)."""
        contract.intended = "running"
        if contract.current == "running" and not contract.halted:
            self.ledger.save(contract)
            return True
        can = self._can_run(contract)
        if can:
            now = self.clock.now()
            billing.close_spans(contract, ("gpu",), now)
            self._bill_disk(contract, now)
            self._run(contract, now)
        self.ledger.save(contract)
        if can:
            self.market.deal(contract.machine_id)
        return can

    def _bill_disk(self, contract: Contract, now: float) -> None:
        """Go on billing the disk of a machine that was offline."""
        if not any(span.kind == "disk" and span.end is None for span in contract.spans):
            contract.spans.append(Span("disk", now, contract.disk_rate))

    def winning_bid(self, contract: Contract) -> float:
        """The least that keeps (or gets) it: the host's own least bid, or what somebody else pays."""
        return max(round(float(contract.offer["bid_price"]) * contract.num_gpus, 4), contract.rival_bid)

    def _can_run(self, contract: Contract) -> bool:
        if contract.bid is not None and contract.bid < self.winning_bid(contract):
            return False
        if contract.rival_bid:
            return True  # now it is the other one who is outbid
        return contract.holds_gpus or self.market.free_gpus(contract.machine_id) >= contract.num_gpus

    def stop(self, contract: Contract, at: float | None = None, note: str | None = None) -> None:
        """Stop it: the disk stays and is billed, the GPUs go back to the market. An offline host stays offline."""
        when = self.clock.now() if at is None else at
        billing.close_spans(contract, ("gpu",), when)
        contract.intended = contract.current = "stopped"
        contract.holds_gpus = False
        if contract.halted != "offline":
            contract.halted, contract.note = None, note
        self.ledger.save(contract)
        self.market.deal(contract.machine_id)

    def rest(self, contract: Contract) -> None:
        """Stop it as vendors do who keep its GPUs for it, and bill them."""
        contract.intended = contract.current = "stopped"
        contract.halted = contract.note = None
        self.ledger.save(contract)

    def destroy(self, contract: Contract, at: float | None = None) -> None:
        """End it for good: nothing is billed from then on, its GPUs and ports are free."""
        now = self.clock.now() if at is None else at
        billing.close_spans(contract, ("gpu", "disk"), now)
        contract.destroyed_at, contract.holds_gpus = now, False
        self.ledger.bury(contract, billing.cost(contract, now))
        self.release_ports(contract)
        self.market.deal(contract.machine_id)

    def release_ports(self, contract: Contract) -> None:
        for port in (*contract.ssh_ports, *contract.http_ports):
            self.ports.release(port, contract.address)

    def destroy_later(self, contract: Contract, seconds: float) -> None:
        """A destroy that the host takes its time over; it is billed until it is done. Asking again is no delay."""
        if contract.dies_at is None:
            contract.dies_at = self.clock.now() + seconds
            self.ledger.save(contract)

    def reboot(self, contract: Contract, kind: str = "rebooting") -> None:
        """The container goes down and comes back; the GPU stays ours and billed."""
        if phase(contract, self.clock.now()).running:
            contract.boot_at, contract.boot_kind = self.clock.now(), kind
            contract.boot_seconds = self.settings.boot_seconds * REBOOT_SHARE
            self.ledger.save(contract)

    def halt(self, contract: Contract, status: str, note: str | None) -> None:
        """The machine dies. An offline host bills nothing; an exited container keeps its disk."""
        now = self.clock.now()
        billing.close_spans(contract, ("gpu", "disk") if status == "offline" else ("gpu",), now)
        if status != "offline":
            self._bill_disk(contract, now)
        contract.halted, contract.note = status, note
        self.ledger.save(contract)

    def change_rate(self, contract: Contract, bid: float) -> None:
        """A new bid: billed from now on, not backwards."""
        now = self.clock.now()
        contract.bid = contract.gpu_rate = bid
        open_spans = [span for span in contract.spans if span.kind == "gpu" and span.end is None]
        for span in open_spans:
            span.end = max(now, span.start)
            contract.spans.append(Span("gpu", span.end, bid))
        self.ledger.save(contract)

    def move(self, contract: Contract, *, port: int = 0, address: str = "", new_key: bool = False) -> None:
        """It is reached by other outside ports from now on. ``address``: and there; a machine that had one of its own
        keeps its port. ``port``: this one, which somebody else may have. ``new_key``: with another host key."""
        for old in contract.ssh_ports:
            self.ports.release(old, contract.address)
        keeps_port = bool(contract.address) and not contract.details.get("moved")
        if address:
            contract.address = address
            contract.details["moved"] = not keeps_port
        if not keeps_port:
            above = contract.answering_proxy - contract.proxy_port
            if "22/tcp" in contract.ports:
                contract.ports["22/tcp"] = port or self.ports.reserve(contract.address)
            if contract.proxy_port:
                contract.proxy_port = (port or self.ports.reserve(contract.address)) - above
        if new_key:
            contract.host_key = self.new_host_key()
        self.ledger.save(contract)

    def relabel(self, contract: Contract, label: str | None) -> None:
        contract.label = label
        self.ledger.save(contract)

    # -- keys --------------------------------------------------------------------------------------

    def attach_key(self, contract: Contract, text: str) -> Key:
        now = self.clock.now()
        return self.ledger.add_instance_key(contract.id, text, now, now + self.settings.key_delay)

    def authorized_keys(self, contract_id: int, user: str = "") -> list[str]:
        """The public keys that open this machine now, for its own user or another."""
        contract = self.ledger.live.get(contract_id)
        if user and contract and user != contract.user:
            return list(contract.more_keys.get(user, []))
        now = self.clock.now()
        return [key.text for key in self.ledger.instance_keys(contract_id) if key.effective_at <= now]

    # -- looking -----------------------------------------------------------------------------------

    def wipe_keys(self, contract: Contract) -> int:
        """Nobody has a key any more; how many there were."""
        wiped = sum(len(keys) for keys in contract.more_keys.values())
        contract.more_keys.clear()
        self.ledger.save(contract)
        return wiped + self.ledger.wipe_instance_keys(contract.id)

    def named(self, name: str) -> Contract | None:
        """A live contract by its number or by what its vendor calls it."""
        live = self.ledger.live
        if name.isdigit():
            return live.get(int(name))
        return next((contract for contract in live.values() if contract.uid == name), None)

    def find(self, account: Account, contract_id: int) -> Contract | None:
        """A live contract of this account; others' are not there."""
        contract = self.ledger.live.get(contract_id)
        return contract if contract and contract.account_id == account.id else None

    def phase(self, contract: Contract) -> Phase:
        return phase(contract, self.clock.now())

    def credit(self, account: Account) -> float:
        return billing.credit(self.ledger, account, self.clock.now())

    def answers(self, contract: Contract) -> bool:
        """Whether its SSH server (or the program that it runs instead) should answer at this moment."""
        quirk = contract.quirks.get("no_ssh")
        if not self.phase(contract).running or (quirk is not None and quirk.get("mode") != "hang"):
            return False
        delay = contract.quirks.get("ssh_delay")
        pause = contract.ssh_after if delay is None else float(delay.get("seconds", 5.0))
        return self.clock.now() >= contract.boot_done_at + pause

    # -- time --------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let time do its work: contract ends, empty accounts, queued starts, other people's rentals."""
        now = self.clock.now()
        for contract in list(self.ledger.live.values()):
            if contract.dies_at is not None and now >= contract.dies_at:
                self.destroy(contract, contract.dies_at)
            elif contract.current == "running" and now >= contract.ends_at:
                self.stop(contract, contract.ends_at, "contract ended")
            elif contract.intended == "running" and contract.current == "stopped":
                self._start_queued(contract)
        for account_id in {c.account_id for c in self.ledger.live.values() if _spends(c)}:
            self._stop_if_broke(self.ledger.account(account_id), now)
        self._remove_unpaid(now)
        self._churn(now)

    def _start_queued(self, contract: Contract) -> None:
        if self._can_run(contract) and self.credit(self.ledger.account(contract.account_id)) > 0:
            self.start(contract)

    def _stop_if_broke(self, account: Account, now: float) -> None:
        """At no credit everything stops, at the moment when it was reached."""
        running = [c for c in self.ledger.live_of(account.id) if _spends(c)]
        if billing.credit(self.ledger, account, now) > 0:
            return
        at = billing.ran_dry_at(self.ledger, account, min(c.created_at for c in running), now)
        for contract in running:
            self.stop(contract, at, "account credit exhausted")

    def _remove_unpaid(self, now: float) -> None:
        """What a vendor takes away from an account that has been below zero for too long."""
        for contract in [c for c in self.ledger.live.values() if c.removed_after is not None]:
            since = now - (contract.removed_after or 0.0)
            if (
                contract.created_at < since
                and billing.credit(self.ledger, self.ledger.account(contract.account_id), since) < 0
            ):
                self.destroy(contract, now)

    def _churn(self, now: float) -> None:
        """Somebody else rents: one machine's offers change their ids."""
        pause = self.settings.churn_seconds
        if pause <= 0 or now - self._churned_at < pause or not self.market.asks:
            return
        self._churned_at = now
        asks = list(self.market.asks)
        self.market.withdraw(asks[hash_of(repr(now)) % len(asks)])


def _spends(contract: Contract) -> bool:
    """Whether an empty account ends it."""
    return contract.current == "running" or contract.holds_gpus
