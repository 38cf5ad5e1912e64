"""``python -m providers.sandbox``: start a sandbox marketplace and keep it until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence

from providers.sandbox.options import DEFAULT_KEY, DEFAULT_TENSORDOCK_TOKEN, SPECS, Options, default_of, env_name


def parser() -> argparse.ArgumentParser:
    """Every option also has an environment variable, e.g. ``SANDBOX_BOOT_SECONDS``."""
    name = "python -m providers.sandbox" if sys.argv[0].endswith("__main__.py") else None
    made = argparse.ArgumentParser(name, description="The sandbox marketplace.")
    for spec in SPECS:
        made.add_argument(
            f"--{spec.name}", type=spec.kind, default=default_of(spec), help=f"{spec.help} [{env_name(spec.name)}]"
        )
    made.add_argument(
        "--api-key",
        action="append",
        dest="api_keys",
        help="an account's key; repeat for more accounts [SANDBOX_API_KEY, comma-separated]",
    )
    made.add_argument(
        "--tensordock-token",
        action="append",
        dest="tensordock_tokens",
        help="a TensorDock account's token; repeat for more [SANDBOX_TENSORDOCK_TOKEN, comma-separated]",
    )
    return made


def read_options(arguments: Sequence[str] | None = None) -> Options:
    found = vars(parser().parse_args(arguments))
    keys = _secrets(found.pop("api_keys"), "SANDBOX_API_KEY", DEFAULT_KEY)
    tokens = _secrets(found.pop("tensordock_tokens"), "SANDBOX_TENSORDOCK_TOKEN", DEFAULT_TENSORDOCK_TOKEN)
    if shared := set(keys) & set(tokens):
        raise ValueError(f"{len(shared)} of the API keys are TensorDock tokens too; an account has its own")
    plain = {name.replace("-", "_"): value for name, value in found.items()}
    return Options(**plain, api_keys=keys, tensordock_tokens=tokens)


def _secrets(given: list[str] | None, variable: str, default: str) -> tuple[str, ...]:
    """From the command line, else the environment, else the one that is built in."""
    found = given or [part.strip() for part in os.environ.get(variable, "").split(",")]
    return tuple(dict.fromkeys(part for part in found if part)) or (default,)


def serve(options: Options) -> int:
    """Run a sandbox in this process until it is signalled; the exit code."""
    from providers.sandbox.app import CannotStart, serve_until_signalled  # heavy: not for --help and bad options

    logging.basicConfig(format="%(name)s: %(message)s", level=logging.INFO, stream=sys.stderr)
    logging.getLogger("asyncssh").setLevel(logging.ERROR)
    try:
        asyncio.run(serve_until_signalled(options, _announce))
    except CannotStart as error:
        print(f"sandbox: {error}", file=sys.stderr)  # noqa: T201 - a command line's answer
        return 2
    return 0


def _announce(url: str) -> None:
    print(f"sandbox marketplace at {url}", flush=True)  # noqa: T201


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        options = read_options(arguments)
    except ValueError as error:
        print(f"sandbox: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return serve(options)


if __name__ == "__main__":
    sys.exit(main())
