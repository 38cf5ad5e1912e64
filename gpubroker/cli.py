"""The ``gpubroker`` command. Each subcommand imports what it needs when it runs: the supervisor must stay small."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from gpubroker.budget_commands import budgets
from gpubroker.failures import SettingsError, StartFailure
from gpubroker.key_commands import keys

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="One inventory of rentable GPUs."
)
app.add_typer(keys, name="key")
app.add_typer(budgets, name="budget")


@app.command()
def run() -> None:
    """Run the whole broker here: queue, marketplace sandbox (without a provider key), web, worker and scheduler."""
    from gpubroker.supervisor.run import run as run_stack

    raise typer.Exit(run_stack())


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def sandbox(context: typer.Context) -> None:
    """Run only the sandbox marketplace (options: --host --port --data-dir and more, see --help)."""
    from gpubroker import roles

    roles.sandbox(context.args)


@app.command()
def web(
    host: Annotated[str, typer.Option(help="Default: SERVER_HOST.")] = "",
    port: Annotated[int, typer.Option(help="Default: SERVER_PORT.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes; one per processor core is plenty.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Requests at a time per process.")] = 32,
) -> None:
    """Run one web server."""
    from gpubroker import roles

    roles.web(host, port, workers, threads)


@app.command()
def worker(
    concurrency: Annotated[int, typer.Option(min=1, help="Tasks at a time.")] = 32,
    queues: Annotated[str, typer.Option(help="Which queues to serve.")] = "tick,destroy,create,default,ssh",
) -> None:
    """Run one worker."""
    from gpubroker import roles

    roles.worker(concurrency, queues)


@app.command()
def beat() -> None:
    """Run the scheduler. Two at once do no harm."""
    from gpubroker import roles

    roles.beat()


@app.command()
def migrate() -> None:
    """Bring the database schema up to date. Several at once take turns."""
    _django()
    from gpubroker import migrating

    migrating.migrate()
    typer.echo("The database schema is up to date.")


@app.command("make-encryption-key")
def make_encryption_key() -> None:
    """Print a new key for ENCRYPTION_KEYS."""
    from cryptography.fernet import Fernet

    typer.echo(Fernet.generate_key().decode())


@app.command("new-provider")
def new_provider(
    name: Annotated[str, typer.Argument(help="Its name: lower-case letters and digits.")],
    into: Annotated[str, typer.Option(help="A checkout of the broker. Default: this one.")] = "",
) -> None:
    """Make the folder of another provider, with contract tests that fail until it is built."""
    from pathlib import Path

    from gpubroker import new_provider as generator

    root = Path(into).resolve() if into else generator.ROOT
    typer.echo(generator.report(generator.make(name, root), name, root))


@app.command()
def check() -> None:
    """Say what is wrong with the configuration, if anything; changes nothing that runs."""
    from gpubroker.supervisor import facts as facts_module
    from gpubroker.supervisor import queue

    facts = facts_module.read()
    problems = [f"{name} is set, but no such setting exists; is it misspelt?" for name in facts.unknown]
    if not facts.has_queue:
        try:
            queue.find_server()
        except StartFailure as failure:
            problems.append(str(failure))
    _django()
    from django.core import checks

    problems += [str(message) for message in checks.run_checks() if message.is_serious(checks.WARNING)]
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)
    provider = "the sandbox marketplace" if facts.sandbox else "your provider account"
    typer.echo(f"The configuration is sound: {facts.address}, API_AUTH={facts.api_auth}, with {provider}.")


def _django() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpubroker.settings")
    import django

    django.setup()


def main() -> None:
    """The console script: what a person must act on is one sentence, not a traceback."""
    try:
        app()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except StartFailure as failure:
        sys.stderr.write(f"{failure}\n")
        sys.exit(failure.code)
