"""Every error that the runbook raises on purpose.

They are few and named for what an operator should understand. The message of each says where (file and line,
host, step, check) and what to do next: the `remedy`, which is the last line of what is shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


class RunbookError(Exception):
    """Base of all named errors.

    `message` says what is wrong and where; `remedy` (optional) says what to do about it. `str()` shows both.
    """

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}" if self.remedy else self.message

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback: the result that the error carries, if any, and the message."""
        shown = [f"{type(self).__name__}: {self}"]
        result = getattr(self, "result", None)
        if result is not None:
            from rich.console import Console

            console = Console(width=120, color_system="standard", force_terminal=True, no_color=False)
            with console.capture() as text:
                console.print(result)
            shown.insert(0, text.get())
        return shown


# parameters and secrets


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong in a parameter file: where it is, what it is, and what to do about it.

    `line` counts from 1 and is 0 where the file could not be read. `field` is the path of the value, with
    list positions from 0 (`hosts[2].address`), and is empty where the file as a whole is meant.
    """

    file: Path
    line: int
    field: str
    message: str
    remedy: str

    @property
    def place(self) -> str:
        """`FILE:LINE`, or the file alone where there is no line."""
        return f"{self.file}:{self.line}" if self.line else str(self.file)

    def __str__(self) -> str:
        what = f"{self.field}: {self.message}" if self.field else self.message
        return f"{self.place}: {what}\n  remedy: {self.remedy}"


class ParameterError(RunbookError):
    """A parameter file is refused; `problems` holds everything that is wrong with it, in the file's order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        count = len(self.problems)
        heading = f"{count} problem{'s' if count != 1 else ''} in the parameters"
        super().__init__("\n".join([heading, *map(str, self.problems)]))
        self.args = (self.problems,)  # what pickle and copy call the class with


class SecretError(RunbookError):
    """A secret cannot be had from where its reference points: variable not set, file readable by others, …"""


# reaching hosts


class HostUnreachable(RunbookError):
    """A host could not be reached, or the connection to it was lost."""


class HostKeyUnknown(HostUnreachable):
    """A host shows a key that known_hosts does not hold; the message carries its fingerprint."""


class HostKeyChanged(HostUnreachable):
    """A host shows another key than known_hosts holds: another machine answers, or somebody listens in."""


class HostKeyRevoked(HostUnreachable):
    """A host shows a key that known_hosts marks as revoked."""


class AuthenticationRefused(HostUnreachable):
    """A host (or its gateway) refused the user or the key."""


class LoginShellFailed(HostUnreachable):
    """A host accepted the login, but did not start a POSIX shell for it (nologin, ForceCommand, expired password)."""


class HostTimeout(HostUnreachable):
    """A host answered, but did not finish within its deadline."""


class BecomeFailed(RunbookError):
    """sudo on a host refused to run the script (wrong password, user not in sudoers, a terminal demanded)."""


# steps, checks, gates


class StepFailed(RunbookError):
    """One step failed on one host: its script failed, or the second probe did not show the desired state."""


class ApplyFailed(RunbookError):
    """Steps failed on some host; `result` holds the results of all hosts, those that went well included."""

    def __init__(self, message: str, remedy: str | None = None, *, result: object = None) -> None:
        super().__init__(message, remedy)
        self.result = result


class DriftFound(RunbookError):
    """Verify mode found differences between the desired and the present state; `result` holds them."""

    def __init__(self, message: str, remedy: str | None = None, *, result: object = None) -> None:
        super().__init__(message, remedy)
        self.result = result


class CheckFailed(RunbookError):
    """A claim about the cluster did not come true within its deadline; the message carries the evidence.

    Where it stopped a call on hosts, `result` holds what had been done on each.
    """

    def __init__(self, message: str, remedy: str | None = None, *, result: object = None) -> None:
        super().__init__(message, remedy)
        self.result = result


class GateRefused(RunbookError):
    """A gate was answered with no, or nobody was there to answer and it was not approved in advance.

    Where it stopped a call on hosts, `result` holds what had been done on each.
    """

    def __init__(self, message: str, remedy: str | None = None, *, result: object = None) -> None:
        super().__init__(message, remedy)
        self.result = result


# talking to services over HTTP


class ServiceError(RunbookError):
    """A service did not answer as it should; `answer` (`services.http.Answer`) is what it said, if it did."""

    def __init__(self, message: str, remedy: str | None = None, *, answer: object = None) -> None:
        super().__init__(message, remedy)
        self.answer = answer


class EndpointUnreachable(ServiceError):
    """Nobody answers at an address: connection refused, no route, unknown name, TLS refused."""


class EndpointTimeout(ServiceError):
    """A connection, a pause within an answer, or a whole answer took longer than its limit."""


class ConnectionCut(ServiceError):
    """The connection ended before the answer was complete."""


class UnexpectedAnswer(ServiceError):
    """A service answered with another status, form or place (a redirect to another host) than it should."""


class NotReady(ServiceError):
    """A service says that it cannot answer yet (503): it recovers, or has no leader to ask."""


class NoLeader(ServiceError):
    """A group of masters has no leader that could be found; the message carries what each of them said."""


class LeaderUnreachable(ServiceError):
    """A standby answers, but could not pass the question on to its leader (500, 502, 504)."""


class NotFound(ServiceError):
    """A service knows nothing of the name that it was asked for (404)."""


class RequestMalformed(ServiceError):
    """A service could not read what it was sent (400): not JSON, or values of the wrong types."""


class AppInvalid(ServiceError):
    """An app's definition breaks Marathon's rules (422), or asks for a change that Marathon cannot make."""


class AppExists(ServiceError):
    """There is an app of this id already (409)."""


class AppLocked(ServiceError):
    """A deployment that is under way locks the app (409); `deployments` holds the ids of those that do."""

    def __init__(
        self, message: str, remedy: str | None = None, *, answer: object = None, deployments: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message, remedy, answer=answer)
        self.deployments = deployments


class DeploymentLimit(ServiceError):
    """Marathon takes no further deployment while as many run as it allows (403)."""


class DeploymentFailed(RunbookError):
    """A deployment did not reach its end in time, or ended otherwise; `result` holds why, as far as it is known."""

    def __init__(self, message: str, remedy: str | None = None, *, result: object = None) -> None:
        super().__init__(message, remedy)
        self.result = result


# talking to a registry


class RepositoryUnknown(NotFound):
    """A registry holds no repository of this name (NAME_UNKNOWN)."""


class ManifestUnknown(NotFound):
    """A repository has no such tag or digest (MANIFEST_UNKNOWN), or its manifest is lost."""


class BlobUnknown(NotFound):
    """A registry does not hold a layer or configuration that was asked for or referred to (BLOB_UNKNOWN)."""


class NameInvalid(RequestMalformed):
    """The name of a repository or tag breaks the registry's grammar (NAME_INVALID, TAG_INVALID)."""


class DigestInvalid(RequestMalformed):
    """What should be a digest is none (DIGEST_INVALID)."""


class DigestMismatch(ServiceError):
    """What a registry gave or took has another digest than it should: it is damaged, or something else."""


class CredentialsRefused(ServiceError):
    """A registry or its token server wants credentials, or refuses those that it got (401, UNAUTHORIZED)."""


class AccessDenied(ServiceError):
    """A registry knows who asks, and does not let them do this (403, DENIED)."""


class DeleteDisabled(ServiceError):
    """A registry runs without REGISTRY_STORAGE_DELETE_ENABLED (405, UNSUPPORTED)."""


class RegistryReadOnly(ServiceError):
    """A registry takes no changes (405 on whatever would change it)."""


class MountRefused(ServiceError):
    """A registry did not take a blob over from another of its repositories."""


class TooManyRequests(ServiceError):
    """A registry, or what stands before it, wants fewer requests (429); `seconds` is how long to wait, if it says."""

    def __init__(
        self, message: str, remedy: str | None = None, *, answer: object = None, seconds: float | None = None
    ) -> None:
        super().__init__(message, remedy, answer=answer)
        self.seconds = seconds


class RegistryTooOld(ServiceError):
    """A registry speaks the API's version 1, or a format of manifests, that the runbook does not use."""


class TlsMismatch(EndpointUnreachable):
    """One side of a connection speaks TLS and the other does not."""


class CertificateRefused(EndpointUnreachable):
    """A service's certificate is not from the CA that is trusted, or not for its address, or not of this time."""


# talking to a database


class LoginRefused(ServiceError):
    """A database does not let this user in: its password, where it comes from, or what it may use."""


class StatementRefused(ServiceError):
    """A database did not do what it was told; the message carries its own."""


# making image archives


class ImageUnavailable(RunbookError):
    """An image cannot be had, or its archive not be made: no engine, no registry in reach, no such tag, no room."""


# around a rollout


class LabError(RunbookError):
    """The rehearsal cluster cannot be started or used; the message says in one line what is missing."""


class RecordError(RunbookError):
    """A record cannot be written or read, or its chain of hashes is broken."""


class ChapterFailed(RunbookError):
    """A chapter ended with sections that failed; `result` is its summary."""

    def __init__(self, message: str, remedy: str | None = None, *, result: object = None) -> None:
        super().__init__(message, remedy)
        self.result = result


class LockHeld(RunbookError):
    """Another rollout of the same cluster runs; the message names its holder and since when it runs."""


class LockUnavailable(RunbookError):
    """The lock of a cluster cannot be taken, although no one holds it: ZooKeeper refuses; the message has the ACL."""
