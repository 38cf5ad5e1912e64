"""What the sandbox knows, in SQLite: accounts, contracts, keys, offers on sale, templates.

Written through at once, so that a killed sandbox finds every contract again: the ledger is the truth
that tests hold a broker's books against. Amounts are floats because the vendors' wires are.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from providers.sandbox.instances import Contract

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS accounts (
    id INTEGER PRIMARY KEY, api_key TEXT NOT NULL UNIQUE, credited REAL NOT NULL, spent REAL NOT NULL DEFAULT 0,
    vendor TEXT NOT NULL DEFAULT 'vastai');
CREATE TABLE IF NOT EXISTS top_ups (
    id INTEGER PRIMARY KEY, account_id INTEGER NOT NULL, at REAL NOT NULL, amount REAL NOT NULL, service TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS contracts (
    id INTEGER PRIMARY KEY, account_id INTEGER NOT NULL, label TEXT, destroyed_at REAL, data TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS contracts_account ON contracts (account_id);
CREATE TABLE IF NOT EXISTS account_keys (
    id INTEGER PRIMARY KEY, account_id INTEGER NOT NULL, text TEXT NOT NULL, created_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS instance_keys (
    id INTEGER PRIMARY KEY, contract_id INTEGER NOT NULL, text TEXT NOT NULL, created_at REAL NOT NULL,
    effective_at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS instance_keys_contract ON instance_keys (contract_id);
CREATE TABLE IF NOT EXISTS asks (id INTEGER PRIMARY KEY, machine_id INTEGER NOT NULL, num_gpus INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS templates (
    id INTEGER PRIMARY KEY, hash_id TEXT NOT NULL, account_id INTEGER, data TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS secrets (
    id TEXT PRIMARY KEY, account_id INTEGER NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL, value TEXT NOT NULL);
"""
#: Everything that a reset forgets. Counters in ``meta`` live on: an id is never given twice.
_FORGET = ("accounts", "top_ups", "contracts", "account_keys", "instance_keys", "asks", "templates", "secrets")


VASTAI, TENSORDOCK = "vastai", "tensordock"


@dataclass(frozen=True, slots=True)
class Account:
    """Its key opens one vendor's face only."""

    id: int
    api_key: str
    vendor: str = VASTAI


@dataclass(frozen=True, slots=True)
class Secret:
    """Something that an account keeps at its vendor, e.g. an SSH key."""

    id: str
    name: str
    type: str
    value: str


@dataclass(frozen=True, slots=True)
class Key:
    """A public key of an account or of one instance (then ``effective_at`` says from when it opens the door)."""

    id: int
    owner_id: int
    text: str
    created_at: float
    effective_at: float = 0.0


class Ledger:
    """The tables, plus all live contracts in memory (every request looks at them)."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, cached_statements=32)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("PRAGMA cache_size=-512")
        self._db.executescript(SCHEMA)
        self._add_what_older_ledgers_lack()
        self.live: dict[int, Contract] = {}
        for (data,) in self._db.execute("SELECT data FROM contracts WHERE destroyed_at IS NULL ORDER BY id"):
            contract = Contract.from_json(data)
            self.live[contract.id] = contract

    def _add_what_older_ledgers_lack(self) -> None:
        columns = {row[1] for row in self._db.execute("PRAGMA table_info(accounts)")}
        if "vendor" not in columns:
            self._db.execute("ALTER TABLE accounts ADD COLUMN vendor TEXT NOT NULL DEFAULT 'vastai'")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Many writes as one."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("COMMIT")

    def forget_everything(self) -> None:
        with self.together():
            for table in _FORGET:
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - our own constant
        self.live.clear()

    # -- meta ------------------------------------------------------------------------------------

    def get_meta(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def set_meta(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def next_number(self, counter: str, start: int, step: int = 1) -> int:
        """The next of a series that survives restarts and resets."""
        value = int(self.get_meta(counter) or start) + step
        self.set_meta(counter, str(value))
        return value

    # -- accounts --------------------------------------------------------------------------------

    def add_account(self, api_key: str, credit: float, at: float, vendor: str = VASTAI) -> Account:
        """The key's account; a new one begins with ``credit``."""
        found = self.account_by_key(api_key, vendor)
        if found:
            return found
        account_id = self.next_number("account", 240_000, 7)
        self._db.execute(
            "INSERT INTO accounts (id, api_key, credited, vendor) VALUES (?, ?, 0, ?)", (account_id, api_key, vendor)
        )
        account = Account(account_id, api_key, vendor)
        if credit:
            self.top_up(account, credit, at)
        return account

    def accounts(self) -> list[Account]:
        return [Account(*row) for row in self._db.execute("SELECT id, api_key, vendor FROM accounts ORDER BY id")]

    def account_by_key(self, api_key: str, vendor: str = VASTAI) -> Account | None:
        row = self._db.execute(
            "SELECT id, api_key, vendor FROM accounts WHERE api_key = ? AND vendor = ?", (api_key, vendor)
        ).fetchone()
        return Account(*row) if row else None

    def account(self, account_id: int) -> Account:
        row = self._db.execute("SELECT id, api_key, vendor FROM accounts WHERE id = ?", (account_id,)).fetchone()
        return Account(*row)

    def balance_of(self, account_id: int) -> tuple[float, float]:
        """Dollars paid in, and dollars that destroyed contracts have cost."""
        row = self._db.execute("SELECT credited, spent FROM accounts WHERE id = ?", (account_id,)).fetchone()
        return float(row[0]), float(row[1])

    def top_up(self, account: Account, amount: float, at: float, service: str = "stripe_payments") -> None:
        self._db.execute(
            "INSERT INTO top_ups (account_id, at, amount, service) VALUES (?, ?, ?, ?)",
            (account.id, at, amount, service),
        )
        self._db.execute("UPDATE accounts SET credited = credited + ? WHERE id = ?", (amount, account.id))

    def top_ups(self, account: Account) -> list[tuple[int, float, float, str]]:
        rows = self._db.execute(
            "SELECT id, at, amount, service FROM top_ups WHERE account_id = ? ORDER BY id", (account.id,)
        )
        return list(rows)

    # -- contracts -------------------------------------------------------------------------------

    def save(self, contract: Contract) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO contracts VALUES (?, ?, ?, ?, ?)",
            (contract.id, contract.account_id, contract.label, contract.destroyed_at, contract.to_json()),
        )
        if contract.destroyed_at is None:
            self.live[contract.id] = contract

    def bury(self, contract: Contract, cost: float) -> None:
        """Keep a destroyed contract for the books, and its final cost on the account."""
        with self.together():
            self.save(contract)
            self._db.execute("UPDATE accounts SET spent = spent + ? WHERE id = ?", (cost, contract.account_id))
        self.live.pop(contract.id, None)

    def live_of(self, account_id: int) -> list[Contract]:
        return [c for c in self.live.values() if c.account_id == account_id]

    def all_contracts(self, account_id: int | None = None) -> list[Contract]:
        """Every contract ever made, oldest first."""
        where, args = ("", ()) if account_id is None else ("WHERE account_id = ?", (account_id,))
        rows = self._db.execute(f"SELECT id, data FROM contracts {where} ORDER BY id", args)  # noqa: S608 - constant
        return [self.live.get(id_) or Contract.from_json(data) for id_, data in rows]

    # -- SSH keys --------------------------------------------------------------------------------

    def account_keys(self, account_id: int) -> list[Key]:
        rows = self._db.execute(
            "SELECT id, account_id, text, created_at FROM account_keys WHERE account_id = ? ORDER BY id", (account_id,)
        )
        return [Key(*row) for row in rows]

    def add_account_key(self, account_id: int, text: str, at: float) -> Key:
        key_id = self.next_number("ssh_key", 510_000, 3)
        self._db.execute("INSERT INTO account_keys VALUES (?, ?, ?, ?)", (key_id, account_id, text, at))
        return Key(key_id, account_id, text, at)

    def change_account_key(self, account_id: int, key_id: int, text: str) -> bool:
        done = self._db.execute(
            "UPDATE account_keys SET text = ? WHERE id = ? AND account_id = ?", (text, key_id, account_id)
        )
        return done.rowcount == 1

    def remove_account_key(self, account_id: int, key_id: int) -> bool:
        done = self._db.execute("DELETE FROM account_keys WHERE id = ? AND account_id = ?", (key_id, account_id))
        return done.rowcount == 1

    def instance_keys(self, contract_id: int) -> list[Key]:
        rows = self._db.execute("SELECT * FROM instance_keys WHERE contract_id = ? ORDER BY id", (contract_id,))
        return [Key(*row) for row in rows]

    def add_instance_key(self, contract_id: int, text: str, at: float, effective_at: float) -> Key:
        key_id = self.next_number("ssh_key", 510_000, 3)
        self._db.execute(
            "INSERT INTO instance_keys VALUES (?, ?, ?, ?, ?)", (key_id, contract_id, text, at, effective_at)
        )
        return Key(key_id, contract_id, text, at, effective_at)

    def remove_instance_key(self, contract_id: int, key_id: int) -> bool:
        done = self._db.execute("DELETE FROM instance_keys WHERE id = ? AND contract_id = ?", (key_id, contract_id))
        return done.rowcount == 1

    def wipe_instance_keys(self, contract_id: int) -> int:
        return self._db.execute("DELETE FROM instance_keys WHERE contract_id = ?", (contract_id,)).rowcount

    # -- secrets ---------------------------------------------------------------------------------

    def secrets(self, account_id: int) -> list[Secret]:
        rows = self._db.execute(
            "SELECT id, name, type, value FROM secrets WHERE account_id = ? ORDER BY rowid", (account_id,)
        )
        return [Secret(*row) for row in rows]

    def add_secret(self, account_id: int, secret: Secret) -> None:
        self._db.execute(
            "INSERT INTO secrets VALUES (?, ?, ?, ?, ?)",
            (secret.id, account_id, secret.name, secret.type, secret.value),
        )

    def remove_secret(self, account_id: int, secret_id: str) -> bool:
        done = self._db.execute("DELETE FROM secrets WHERE id = ? AND account_id = ?", (secret_id, account_id))
        return done.rowcount == 1

    # -- offers on sale --------------------------------------------------------------------------

    def asks(self) -> list[tuple[int, int, int]]:
        return list(self._db.execute("SELECT id, machine_id, num_gpus FROM asks ORDER BY id"))

    def replace_asks(self, machine_id: int, asks: list[tuple[int, int]]) -> None:
        """Take a machine's offers off the market and put these (id, GPUs) in their place."""
        self._db.execute("DELETE FROM asks WHERE machine_id = ?", (machine_id,))
        self._db.executemany("INSERT INTO asks VALUES (?, ?, ?)", [(id_, machine_id, gpus) for id_, gpus in asks])

    def clear_asks(self) -> None:
        self._db.execute("DELETE FROM asks")

    # -- templates -------------------------------------------------------------------------------

    def templates(self, account_id: int) -> list[dict[str, Any]]:
        """The public templates and the account's own."""
        rows = self._db.execute(
            "SELECT data FROM templates WHERE account_id IS NULL OR account_id = ? ORDER BY id", (account_id,)
        )
        return [json.loads(data) for (data,) in rows]

    def save_template(self, row: dict[str, Any], account_id: int | None) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO templates VALUES (?, ?, ?, ?)",
            (row["id"], row["hash_id"], account_id, json.dumps(row)),
        )

    def remove_template(self, account_id: int, template_id: int) -> bool:
        done = self._db.execute("DELETE FROM templates WHERE id = ? AND account_id = ?", (template_id, account_id))
        return done.rowcount == 1
