"""How a release's command ends without having done what was asked, and what of it the shell is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from container.operate.exits import CommandFailed, Exit
from container.operate.troubles import Misused, NotNow, Refused
from handler.errors import ArtifactChanged, ArtifactError, ArtifactForbidden, ArtifactUnavailable, TargetInvalid
from handler.stores import LocationInvalid

EXIT_CODES = """\
exit codes
  0  done, or nothing was to do
  1  what was looked at is not as it should be: a live prefix that is not whole, answers of another model
  2  the command cannot be understood
  3  refused: no such release, nothing to approve, live objects changed by hand, it may not be read or written, or there is
     no such bucket or no credentials
  4  no artifact of those to be published is sound
  5  not now: the store failed, or somebody else was faster; look and call again
  6  nobody answers at the address
"""


class NotWhole(CommandFailed):
    exit = Exit.FAILED


class NoneSound(CommandFailed):
    exit = Exit.MODEL_ERROR


AGAIN = "call again: what is done already is not done twice"
LOOK = "mme release show says how far it came, and mme release finish ends it, or with --undo takes it back"


@contextmanager
def told(then: str = AGAIN) -> Iterator[None]:
    """What stores raise, as the end of a command. then: what to do when the store fails."""
    try:
        yield
    except (LocationInvalid, TargetInvalid) as error:
        raise Misused(str(error)) from error
    except ArtifactForbidden as error:
        raise Refused(str(error) + ("; " + LOOK if error.doing == "written" else "")) from error
    except ArtifactUnavailable as error:
        why = _lacking(error)
        raise (Refused(f"{error}: {why}") if why else NotNow(f"{error}; {then}")) from error
    except ArtifactChanged as error:
        raise NotNow(f"{error}; {then}") from error
    except ArtifactError as error:
        raise Refused(str(error)) from error


def _lacking(error: ArtifactUnavailable) -> str:
    """What the same command would lack again; nothing when it may fare better. An endpoint asks again for these too, since
    buckets and roles come up beside it; a person is there to mend them."""
    if error.code == "NoSuchBucket":
        return "there is no such bucket"
    from botocore.exceptions import NoCredentialsError  # boto3 costs 0.2 s

    # Not by its code, which credentials have too that could not be fetched just now.
    return "this machine has no credentials for AWS" if isinstance(error.__cause__, NoCredentialsError) else ""


@contextmanager
def aws_told() -> Iterator[None]:
    """What boto3 raises of other services than S3, as the end of a command."""
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError  # boto3 costs 0.2 s

    try:
        yield
    except ParamValidationError as error:
        raise Misused(" ".join(str(error).split())) from error
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        raise (Refused if 400 <= status < 500 and status != 429 else NotNow)(str(error)) from error
    except BotoCoreError as error:
        raise NotNow(str(error)) from error
