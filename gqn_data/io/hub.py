"""Addresses of the Hugging Face hub: `hf://datasets/USER/NAME[@REVISION][/FOLDER]`, and `hf://USER/NAME` for models.

Files are read by the hub's HTTPS addresses, without its package. `HF_ENDPOINT` names another server, and `HF_TOKEN` or
the token file of `hf auth login` the token: https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import quote, unquote

from gqn_data.errors import OptionError, SourceMissing, StoreMissing
from gqn_data.io import regular

if TYPE_CHECKING:
    import requests

SCHEME = "hf"
ENDPOINT = "https://huggingface.co"
REMEDY = "Check the name; for a private or gated repository set HF_TOKEN, or run `hf auth login`"
_FORM = "hf://datasets/USER/NAME[@REVISION][/FOLDER], or hf://USER/NAME for a model"
_MAIN = "main"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_ADDRESS = re.compile(
    rf"(?:(datasets)/|(?!(?:datasets|models|spaces|buckets|kernels)/))({_NAME}/{_NAME})"
    r"(?:@((?:refs/(?:pr|convert)/)?[^/@?#\s]+))?(?:/+([^?#]*))?"
)
_MOST_TOKEN_BYTES = 4096
_TIMEOUT = 30.0  # seconds

Kind = Literal["dataset", "model"]


class Repository(NamedTuple):
    """A repository at a revision.

    Attributes:
        kind: `dataset` or `model`.
        name: `USER/NAME`.
        revision: branch, tag or commit.
    """

    kind: Kind
    name: str
    revision: str = _MAIN

    def __str__(self) -> str:
        revision = "" if self.revision == _MAIN else f"@{quote(self.revision, safe='')}"
        return f"{SCHEME}://{'datasets/' if self.kind == 'dataset' else ''}{self.name}{revision}"

    def files_url(self, endpoint: str) -> str:
        """Return the URL below which the files lie."""
        prefix = "datasets/" if self.kind == "dataset" else ""
        return f"{endpoint}/{prefix}{self.name}/resolve/{quote(self.revision, safe='')}"


def parse_repository(text: str, shown: str = "") -> tuple[Repository, str]:
    """Parse the part of an address behind `hf://`, and return the repository and the path of a folder or file in it.

    Args:
        text: the part of the address.
        shown: the address for messages, without secrets; empty for `text`.

    Raises:
        SourceMissing: it is not an address of a repository.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise SourceMissing(f"{shown or text}: not a repository of the hub without a login, expected {_FORM}")
    kind: Kind = "dataset" if found[1] else "model"
    revision = unquote(found[3] or _MAIN)
    if not revision.isprintable() or any(part in ("", ".", "..") for part in revision.split("/")):
        raise SourceMissing(f"{shown or text}: the revision is {revision[:80]!r}, expected a branch, tag or commit")
    return Repository(kind, found[2], revision), found[4] or ""


def check_name(name: str) -> str:
    """Return the name of a repository, `USER/NAME`.

    Raises:
        OptionError: it has another form.
    """
    if not re.fullmatch(f"{_NAME}/{_NAME}", name):
        raise OptionError(f"{name!r}: expected USER/NAME, of letters, digits, dots, dashes and underscores")
    return name


def endpoint() -> str:
    """Return the URL of the hub: `$HF_ENDPOINT`, else the public one.

    Raises:
        OptionError: it is not a URL of a web server.
    """
    found = (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
    if not re.fullmatch(r"https?://[^\s@?#]+", found):
        raise OptionError("HF_ENDPOINT: not the URL of a server, expected https://HOST without a login. Change it")
    return found


def token() -> str:
    """Return the token: `$HF_TOKEN`, else the one from `hf auth login`; empty without one.

    Raises:
        OptionError: it is not a token, so that it cannot be sent.
    """
    found, where = os.environ.get("HF_TOKEN", "").strip(), "HF_TOKEN"
    if not found:
        path = _token_file()
        where = str(path)
        try:
            with regular.open_read(path) as file:
                found = file.read(_MOST_TOKEN_BYTES).decode(errors="replace").strip()
        except FileNotFoundError:
            return ""
    if not re.fullmatch(r"[!-~]+", found):  # anything else would be shown by the error of the client
        raise OptionError(f"{where}: not a token, expected one line of ASCII without spaces. Run `hf auth login`")
    return found


def _token_file() -> Path:
    """Return the file that `hf auth login` writes."""
    given = os.environ.get("HF_TOKEN_PATH")
    if given:
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111  never raises
    return Path(os.environ.get("HF_HOME") or Path(cache) / "huggingface") / "token"


def check_repository(repository: Repository, server: str, secret: str) -> None:
    """Raise if the repository or its revision does not exist; a file that is absent is fine.

    Args:
        repository: the repository.
        server: URL of the hub.
        secret: the token, or an empty string.

    Raises:
        StoreMissing: it does not exist, or the token may not see it.
    """
    import requests

    def bearer(request: requests.PreparedRequest) -> requests.PreparedRequest:
        if secret:
            request.headers["Authorization"] = f"Bearer {secret}"
        return request

    url = f"{server}/api/{repository.kind}s/{repository.name}/revision/{quote(repository.revision, safe='')}"
    try:  # a callable for `auth`: a header would be replaced by an entry of ~/.netrc
        with requests.get(url, auth=bearer, timeout=_TIMEOUT, stream=True) as response:
            status, code = response.status_code, response.headers.get("X-Error-Code", "")
    except requests.RequestException:
        return  # the fault of the caller's own request is reported
    if status == 404 and code == "RevisionNotFound":
        raise StoreMissing(f"{repository}: no revision {repository.revision!r}, expected a branch, tag or commit")
    if status in (401, 403, 404):
        other = f"hf://datasets/{repository.name}" if repository.kind == "model" else f"hf://{repository.name}"
        raise StoreMissing(
            f"{repository}: no such {repository.kind} on the hub, or it is private. {REMEDY}. A "
            f"{'dataset' if repository.kind == 'model' else 'model'} has the address {other}"
        )
