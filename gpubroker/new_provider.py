"""``gpubroker new-provider NAME``: the folder of another provider, whose contract tests fail until it is built."""

from __future__ import annotations

import keyword
import re
from importlib import resources
from pathlib import Path

from gpubroker.failures import StartFailure

ROOT = Path(__file__).resolve().parent.parent
_NAME = re.compile(r"[a-z][a-z0-9]{2,20}")
_IMPORTS = re.compile(r"(?:from providers\.\S+ import .*\n)+")
#: Written file -> its template beside this module; an empty one marks a package.
_FILES = {
    "providers/{name}/__init__.py": "package.txt",
    "providers/{name}/client.py": "client.txt",
    "tests/providers/{name}/__init__.py": "",
    "tests/providers/{name}/test_contract.py": "test_contract.txt",
}
#: What only a checkout has.
_NEEDED = ("providers/base.py", "providers/registry.py", "tests/providers/contract.py")
NEXT = """\
Next, as docs/adding-a-provider.md tells:
  providers/sandbox/{name}/        its face in the sandbox, which the tests run against
  providers/{name}/                the client, until tests/providers/{name} is green
  providers/registry.py            a configuration class, and its entry in _BUILDERS
  gpubroker/common/providers.py    the name in KNOWN, and the configuration in configured()
  gpubroker/settings/__init__.py   {upper}_API_KEY and {upper}_BASE_URL, and both in .env.example
  pyproject.toml                   providers.{name} in the two import contracts that name the providers
  docs/prices.md                   what its price contains"""


def make(name: str, root: Path = ROOT) -> list[Path]:
    """Write the files below ``root``, a checkout of the broker; the new ones. ``StartFailure`` says in one sentence
    why not, and then nothing was written."""
    _refuse(name, root)
    written = []
    for pattern, template in _FILES.items():
        path = root / pattern.format(name=name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_filled(template, name) if template else "", encoding="utf-8")
        written.append(path)
    return written


def _refuse(name: str, root: Path) -> None:
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise StartFailure(
            f"a provider's name is 3 to 21 lower-case letters and digits, and begins with a letter, not {name!r}.", 2
        )
    if missing := [each for each in _NEEDED if not (root / each).is_file()]:
        raise StartFailure(f"{root} is no checkout of the broker: it has no {missing[0]}.", 2)
    for path in (root / "providers" / name, root / "providers" / f"{name}.py", root / "tests" / "providers" / name):
        if path.exists():
            raise StartFailure(f"there is a {path.relative_to(root)} already.", 1)


def _filled(template: str, name: str) -> str:
    text = resources.files("gpubroker").joinpath("provider_template", template).read_text(encoding="utf-8")
    text = text.replace("@name@", name).replace("@Class@", name.capitalize())
    # Where the name stands among the imports depends on the name.
    return _IMPORTS.sub(lambda block: "".join(sorted(block[0].splitlines(keepends=True))), text)


def report(written: list[Path], name: str, root: Path = ROOT) -> str:
    """What was written, and what is to be done by hand."""
    files = "\n".join(f"  {path.relative_to(root)}" for path in written)
    return f"Written:\n{files}\n\n{NEXT.format(name=name, upper=name.upper())}"
