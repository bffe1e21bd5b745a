"""Pull steps: what a worker does before each run of a deployment, so that its code is there. One record for each kind.

A deployment has them as its job variable `pull_steps`, a list of objects with one key, which is the step's name:
`[{"git_clone": {"repository": "https://example.org/shop.git"}}, {"pip_install_requirements": {}}]`. They are checked
where they are written, and carried out by `upwell.serving.pulling`.
"""
# The annotations below are read at run time, to check steps.

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Annotated, Any, Final, TypeAlias, cast
from urllib.parse import SplitResult, urlsplit

import msgspec
from msgspec import Meta, Struct, field

from upwell.core.errors import ConfigurationError
from upwell.core.parameter_schema import plain_parameters

VARIABLE: Final = "pull_steps"
"""The job variable that holds them."""

TIMEOUT_SECONDS: Final = 600.0

_Seconds: TypeAlias = Annotated[float, Meta(gt=0)]
_Text: TypeAlias = Annotated[str, Meta(min_length=1)]


class GitClone(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The code of a repository, as it is when the run begins; the run, and the steps that follow, work in its folder.

    repository: see `check_repository`. branch, tag, commit: one of them at most; the repository's own branch unless
        said. commit: all its digits.
    access_token_variable: the variable of the worker's environment that holds the token, for an https repository that
        asks for one. username: what is sent with it.
    """

    repository: str
    branch: str | None = None
    tag: str | None = None
    commit: str | None = None
    include_submodules: bool = False
    access_token_variable: str | None = None
    username: _Text = "x-access-token"
    timeout_seconds: _Seconds = TIMEOUT_SECONDS

    def __post_init__(self) -> None:
        check_repository(self.repository)
        said = {name: getattr(self, name) for name in ("branch", "tag", "commit") if getattr(self, name) is not None}
        if len(said) > 1:
            raise ConfigurationError(
                f"{' and '.join(said)} cannot both be said: one of them says which commit is meant."
            )
        if self.commit is not None and not _COMMIT.fullmatch(self.commit):
            raise ConfigurationError(f"commit must be all 40 digits of a commit's name, not {self.commit!r}.")
        for name in ("branch", "tag"):
            if name in said and not _is_name_of_ref(said[name]):
                raise ConfigurationError(f"{name} must be the name of a {name}, not {said[name]!r}.")
        if self.access_token_variable is not None:
            if not _VARIABLE_NAME.fullmatch(self.access_token_variable):
                raise ConfigurationError(
                    "access_token_variable must be the name of a variable of the worker's environment, such as "
                    "GIT_TOKEN; it is not the token itself."
                )
            if not self.repository.startswith(("https://", "http://")):
                raise ConfigurationError("An access token is for https; over ssh the worker's own key is used.")


class PullFromRemoteStorage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The files below a URL of fsspec, as they are when the run begins; the run works in their folder."""

    url: str
    timeout_seconds: _Seconds = TIMEOUT_SECONDS

    def __post_init__(self) -> None:
        check_remote_storage(self.url)


class SetWorkingDirectory(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A folder of the worker's machine to work in: an absolute path, or one from the folder of the steps before."""

    directory: _Text


class RunShellScript(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Commands that are run before each run. No shell reads them: each line is split at its spaces as a shell would.

    script: a line, several lines, or the arguments of one command as a list.
    directory: where, from the folder of the steps before. env: variables of the environment, besides the run's.
    """

    script: str | list[str]
    directory: str | None = None
    env: dict[str, str] = field(default_factory=dict[str, str])
    timeout_seconds: _Seconds = TIMEOUT_SECONDS

    def __post_init__(self) -> None:
        if not self.commands():
            raise ConfigurationError("script says no command.")

    def commands(self) -> list[list[str]]:
        """Each as its arguments."""
        if isinstance(self.script, list):
            return [self.script] if self.script else []
        try:
            split = [shlex.split(line, comments=True) for line in self.script.replace("\\\n", " ").splitlines()]
        except ValueError as error:
            raise ConfigurationError(f"script cannot be split into arguments: {error}.") from None
        return [arguments for arguments in split if arguments]


class PipInstallRequirements(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a requirements file names, installed by pip into a folder that runs with the same file share."""

    requirements_file: _Text = "requirements.txt"
    directory: str | None = None
    timeout_seconds: _Seconds = TIMEOUT_SECONDS


Step: TypeAlias = GitClone | PullFromRemoteStorage | SetWorkingDirectory | RunShellScript | PipInstallRequirements

STEPS: Final[dict[str, type[Step]]] = {
    "git_clone": GitClone,
    "pull_from_remote_storage": PullFromRemoteStorage,
    "set_working_directory": SetWorkingDirectory,
    "run_shell_script": RunShellScript,
    "pip_install_requirements": PipInstallRequirements,
}
_NAMES: Final = {kind: name for name, kind in STEPS.items()}

_INSTEAD: Final = {
    "access_token": "tokens are not stored: say `access_token_variable: NAME`, and set that variable where workers run",
    "credentials": "tokens are not stored: say `access_token_variable: NAME`, and set that variable where workers run",
    "commit_sha": "here it is `commit`",
    "id": "steps do not read each other's outputs: each works in the folder that those before it have led to",
    "requires": "no step needs a package of its own",
    "stream_output": "what commands say is in the worker's log",
}
"""Parameters of Prefect's steps that are none here."""


def name_of(step: Step) -> str:
    """What it is called where it is written."""
    return _NAMES[type(step)]


def as_written(step: Step) -> dict[str, Any]:
    """A step as deployments hold it, without what is as it would be unless said."""
    said: dict[str, Any] = msgspec.to_builtins(step)
    usual = {it.name: it.default for it in msgspec.structs.fields(step)}
    return {name_of(step): {name: value for name, value in said.items() if value != usual[name] and value != {}}}


def steps_from(said: object) -> list[Step]:
    """Steps as they are written, checked.

    Raises:
        ConfigurationError: there is no such step, or it cannot be like that; names the step.
    """
    if said is None:
        return []
    if not isinstance(said, list | tuple):
        raise ConfigurationError(f"Pull steps are a list, such as [{{'git_clone': {{...}}}}], not {said!r}.")
    return [_step(number, it) for number, it in enumerate(cast("Iterable[object]", said), 1)]


def checked_variables(job_variables: Mapping[str, Any] | None) -> dict[str, Any]:
    """Job variables as they are stored: as JSON can carry them, pull steps among them checked.

    Raises:
        ConfigurationError: there is no such step. InvalidRequestError: JSON cannot say a variable.
    """
    variables = plain_parameters(job_variables or {})
    if VARIABLE in variables:
        steps_from(variables[VARIABLE])
    return variables


def _step(number: int, said: object) -> Step:
    if isinstance(said, Step):
        return said
    if not isinstance(said, Mapping) or len(cast("Mapping[object, object]", said)) != 1:
        raise ConfigurationError(
            f"Pull step {number} must have one key, the name of a step, such as {{'git_clone': {{...}}}}, not {said!r}."
        )
    ((name, parameters),) = cast("Mapping[str, object]", said).items()
    kind = STEPS.get(name)
    if kind is None:
        short = str(name).rpartition(".")[2]
        near = difflib.get_close_matches(short, STEPS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(STEPS)}."
        raise ConfigurationError(f"Pull step {number}: there is no step {name!r}. {hint}")
    try:
        return msgspec.convert({} if parameters is None else parameters, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"Pull step {number} ({name}): {_explained(str(error), kind)}") from None


_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(\w+)`")


def _explained(message: str, kind: type[Struct]) -> str:
    """What msgspec says, for people."""
    unknown = _UNKNOWN_FIELD.match(message)
    if unknown is None:
        return f"{message.removesuffix('.').replace('`$.', '`')}."
    if unknown[1] in _INSTEAD:
        return f"`{unknown[1]}`: {_INSTEAD[unknown[1]]}."
    near = difflib.get_close_matches(unknown[1], kind.__struct_fields__, n=1)
    hint = f"Did you mean `{near[0]}`?" if near else f"It has: {', '.join(kind.__struct_fields__)}."
    return f"there is no `{unknown[1]}`. {hint}"


# --- addresses ----------------------------------------------------------------------------------------------

_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REF: Final = re.compile(r"[^\s~^:?*\[\\\x00-\x1f\x7f-]" + r"[^\s~^:?*\[\\\x00-\x1f\x7f]*")
_SCP: Final = re.compile(r"(?:[A-Za-z0-9_.][\w.-]*@)?[A-Za-z0-9_.][\w.-]*:[^:@\s][^@\s]*")
_HELPER: Final = re.compile(r"[A-Za-z0-9+.-]+::")
_USER_INFO: Final = re.compile(r"(?<=://)[^/\s]*@")


def _is_name_of_ref(name: str) -> bool:
    return bool(_REF.fullmatch(name)) and ".." not in name and "@{" not in name and not name.endswith(("/", ".lock"))


def without_user(text: str) -> str:
    """The same, the users and passwords of URLs in it left out."""
    return _USER_INFO.sub("***@", text)


def protocol_of(repository: str) -> str:
    """How git reaches it: `https`, `http`, `ssh` or `file`."""
    if "://" in repository:
        return urlsplit(repository).scheme
    return "file" if repository.startswith("/") else "ssh"


def check_repository(url: str) -> str:
    """The address of a repository: https, ssh (`git@host:path`, too), `file://`, or an absolute path.

    Raises:
        ConfigurationError: it is none, or it holds a secret.
    """
    if not url or url.startswith("-") or _HELPER.match(url) or any(ord(it) <= 32 or ord(it) == 127 for it in url):
        raise ConfigurationError(f"{without_user(url)!r} is no address of a repository: {_REPOSITORIES}.")
    if "://" not in url:
        if not (url.startswith("/") or _SCP.fullmatch(url)):
            raise ConfigurationError(f"{without_user(url)!r} is no address of a repository: {_REPOSITORIES}.")
        return url
    parts = _split(url)
    secret = parts.password is not None or (parts.username is not None and parts.scheme != "ssh")
    if secret or parts.query or parts.fragment:
        raise ConfigurationError(
            f"The address {without_user(url).partition('?')[0]} holds a user name, a password or a query. What a "
            "deployment says is stored, so name a variable that holds the token where workers run: "
            "GitRepository('https://...', access_token_variable='GIT_TOKEN')."
        )
    is_near = parts.scheme == "http" and _is_loopback(parts.hostname)
    if parts.scheme not in ("https", "ssh", "file") and not is_near:
        raise ConfigurationError(f"Repositories are not reached by {parts.scheme}:// ({url}): {_REPOSITORIES}.")
    if (parts.scheme == "file") != (not parts.hostname) or (parts.hostname or "").startswith("-"):
        raise ConfigurationError(f"{without_user(url)!r} is no address of a repository: {_REPOSITORIES}.")
    return url


_REPOSITORIES: Final = "it must be like https://host/path.git, git@host:path.git, ssh://git@host/path.git or /path.git"


def check_remote_storage(url: str) -> str:
    """A URL of fsspec.

    Raises:
        ConfigurationError: it is none, or it holds a secret.
    """
    protocol, separator, path = url.partition("://")
    if not (separator and re.fullmatch(r"[a-z0-9+]+", protocol) and path):
        raise ConfigurationError(f"{without_user(url)!r} is no URL of a folder: it must be like s3://bucket/folder.")
    if without_user(url) != url and ":" in path.partition("@")[0]:
        raise ConfigurationError(
            f"The URL {without_user(url)} holds a password. What a deployment says is stored: let workers have it by "
            "their environment, as fsspec and its packages read it."
        )
    return url


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ConfigurationError(f"{without_user(url)!r} is no URL.") from None
    return parts


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


__all__ = [
    "STEPS",
    "GitClone",
    "PipInstallRequirements",
    "PullFromRemoteStorage",
    "RunShellScript",
    "SetWorkingDirectory",
    "Step",
    "as_written",
    "check_repository",
    "checked_variables",
    "name_of",
    "steps_from",
]
