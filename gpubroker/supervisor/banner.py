"""What a person reads when the broker is up."""

from __future__ import annotations

from pathlib import Path

from gpubroker.supervisor.facts import Facts
from gpubroker.supervisor.output import Terminal

SCRIPT = Path(__file__).with_name("first_session.sh")
SCRIPT_ADDRESS = "http://127.0.0.1:8080"


def first_session(facts: Facts) -> str:
    """The first session as commands to paste; the README shows the same file."""
    return SCRIPT.read_text().replace(SCRIPT_ADDRESS, facts.address).rstrip()


def print_banner(terminal: Terminal, facts: Facts, seconds: float, admin_password: str) -> None:
    def bold(text: str) -> str:
        return terminal.paint("bold", text)

    market = (
        "the built-in sandbox marketplace (real SSH, no real money; set VASTAI_API_KEY to rent real machines)"
        if facts.sandbox
        else "your provider account: sessions rent real machines and cost real money"
    )
    if admin_password:
        login = f"log in as {bold('admin')} with password {bold(admin_password)} (shown this once)"
    elif facts.embedded:
        login = "forgotten password: python manage.py changepassword admin"
    else:
        login = "make an account: python manage.py createsuperuser"
    lines = [
        "",
        f"{terminal.paint('green', 'GPU Broker is ready')} after {seconds:.1f} s, with {market}.",
        "",
        f"  API        {bold(f'{facts.address}/api/v1')}",
        f"  API docs   {bold(f'{facts.address}/api/docs')}",
        f"  Admin      {bold(f'{facts.address}/admin/')}  {login}",
        f"  Data, logs {facts.data_dir}",
        "",
    ]
    if facts.api_auth == "open" and facts.sandbox:
        lines += ["Your first session; paste this into another terminal:", "", first_session(facts), ""]
    elif facts.api_auth != "open":
        lines += ["Requests need an API key (API_AUTH=key).", ""]
    lines += ["Ctrl-C stops the broker; rented machines keep running and are known again at the next start.", ""]
    terminal.show("\n".join(lines))
    terminal.note(f"ready at {facts.address} after {seconds:.1f} s")
