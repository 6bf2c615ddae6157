"""Fetches checkpoints from the Hugging Face Hub; needs nothing once the files are there."""

from __future__ import annotations

import re
from pathlib import Path

from inference.errors import CheckpointError

DEFAULT_REPOSITORY = "fishaudio/fish-speech-1.5"
PINNED = {DEFAULT_REPOSITORY: "268b6ec86243dd683bc78dab7e9a6cedf9191f2a"}
"""Revisions used when none is named, so that the same command loads the same weights next year."""
_FILES = ("config.json", "model.pth", "model.safetensors", "tokenizer.tiktoken", "firefly-gan-vq-fsq-*-generator.*", "LICENSE*", "README.md")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def is_repository(name: str) -> bool:
    """Whether a name looks like `owner/name` or `owner/name@revision`."""
    return _REPOSITORY.fullmatch(name) is not None and not name.startswith((".", "/", "~"))


def fetch(name: str) -> Path:
    """The local directory of a repository, downloading what is missing. Interrupted downloads go on where they stopped.

    `HF_TOKEN` is used when set. Raises CheckpointError saying what to do when access is refused or the network is down.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
    except ImportError:
        raise CheckpointError(f"downloading {name} needs the package huggingface_hub; install it, or name a local directory") from None
    repository, _, revision = name.partition("@")
    revision = revision or PINNED.get(repository, "main")
    page = f"https://huggingface.co/{repository}"
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(_FILES)))
    except GatedRepoError:
        raise CheckpointError(f"{repository} is gated: accept its terms at {page}, make a token at https://huggingface.co/settings/tokens, and set HF_TOKEN to it") from None
    except RevisionNotFoundError:
        raise CheckpointError(f"{repository} has no revision {revision!r}; see {page}/commits/main") from None
    except RepositoryNotFoundError:
        raise CheckpointError(f"there is no repository {repository}, or HF_TOKEN may not see it; check the name at {page}") from None
    except LocalEntryNotFoundError as e:
        raise CheckpointError(f"{repository} is not on this machine and the Hub cannot be reached ({_reason(e)}); check the network, or copy the files here and name their directory") from None
    except HfHubHTTPError as e:
        raise CheckpointError(f"the Hub refused {repository}: {_reason(e)}") from None
    except OSError as e:
        raise CheckpointError(f"{repository} could not be downloaded: {_reason(e)}") from None


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]
