"""What a person reads when the broker is up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gpubroker.supervisor.facts import Facts
from gpubroker.supervisor.output import Terminal

SCRIPT = Path(__file__).with_name("first_session.sh")
SCRIPT_ADDRESS = "http://127.0.0.1:8080"
SCRIPT_CONSUMER = '"consumer_id": "me"'
#: For whom ``prepare.first_key`` makes the first key.
KEY_CONSUMER = '"consumer_id": "default"'


#: After the script's ``cd`` into a folder that only its owner can read: every curl then sends the key, and no process
#: shows it among its arguments.
WITH_KEY = """echo 'Authorization: Bearer {key}' > auth
curl() {{ command curl -H @auth "$@"; }}
"""


@dataclass(frozen=True)
class Made:
    """What a first start made and shows once. Empty: nothing."""

    admin_password: str = field(default="", repr=False)
    api_key: str = field(default="", repr=False)


def first_session(facts: Facts, api_key: str = "") -> str:
    """The first session as commands to paste; the README shows the same file. With a key it acts for its consumer."""
    script = SCRIPT.read_text().replace(SCRIPT_ADDRESS, facts.address).rstrip()
    if not api_key:
        return script
    first, folder, rest = script.split("\n", 2)
    return f"{first}\n{folder}\n{WITH_KEY.format(key=api_key)}{rest.replace(SCRIPT_CONSUMER, KEY_CONSUMER)}"


def print_banner(terminal: Terminal, facts: Facts, seconds: float, made: Made) -> None:
    def bold(text: str) -> str:
        return terminal.paint("bold", text)

    market = (
        "the built-in sandbox marketplace (real SSH, no real money; set VASTAI_API_KEY or TENSORDOCK_API_TOKEN to rent "
        "real machines)"
        if facts.sandbox
        else "your provider account: sessions rent real machines and cost real money"
    )
    if made.admin_password:
        login = f"log in as {bold('admin')} with password {bold(made.admin_password)} (shown this once)"
    elif facts.embedded:
        login = "forgotten password: python manage.py changepassword admin"
    else:
        login = "make an account: python manage.py createsuperuser"
    key = f"{bold(made.api_key)} for consumer {bold('default')} (shown this once)"
    lines = [
        "",
        f"{terminal.paint('green', 'GPU Broker is ready')} after {seconds:.1f} s, with {market}.",
        "",
        f"  API        {bold(f'{facts.address}/api/v1')}",
        *([f"  API key    {key}"] if made.api_key else []),
        f"  API docs   {bold(f'{facts.address}/api/docs')}",
        f"  Admin      {bold(f'{facts.address}/admin/')}  {login}",
        f"  Data, logs {facts.data_dir}",
        "",
    ]
    if facts.api_auth != "open" and not made.api_key:
        lines += ["Requests need an API key (API_AUTH=key). Make one: gpubroker key create --consumer NAME", ""]
    elif facts.sandbox:
        lines += ["Your first session; paste this into another terminal:", "", first_session(facts, made.api_key), ""]
    lines += ["Ctrl-C stops the broker; rented machines keep running and are known again at the next start.", ""]
    terminal.show("\n".join(lines))
    terminal.note(f"ready at {facts.address} after {seconds:.1f} s")
