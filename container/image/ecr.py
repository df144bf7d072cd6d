"""Amazon's container registry, for `./build.sh push`: makes the repository when asked, and prints the password to log in.

argv: the registry's host name, and the repository to make if it is not there.
"""

from __future__ import annotations

import base64
import re
import sys

from botocore.exceptions import BotoCoreError, ClientError

from handler import aws

# 123456789012.dkr.ecr.eu-west-1.amazonaws.com, with -fips, and .cn in China.
_REGISTRY = re.compile(r"(\d{12})\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")


def main() -> int:
    match = _REGISTRY.fullmatch(sys.argv[1])
    if match is None:
        print(f"{sys.argv[1]} is not a registry of ECR's", file=sys.stderr)
        return 2
    account, region = match.groups()
    client = aws.client("ecr", aws.Patience(), region=region)
    try:
        for name in sys.argv[2:]:
            try:
                client.create_repository(
                    registryId=account,
                    repositoryName=name,
                    # A tag names a commit, and stays with what was built from it.
                    imageTagMutability="IMMUTABLE",
                    imageScanningConfiguration={"scanOnPush": True},
                )
                print(f"made the repository {name}", file=sys.stderr)
            except client.exceptions.RepositoryAlreadyExistsException:
                pass  # it is there, which is all that was asked for
        token = client.get_authorization_token(registryIds=[account])["authorizationData"][0]["authorizationToken"]
    except (BotoCoreError, ClientError) as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        return 1
    print(base64.b64decode(token).decode().removeprefix("AWS:"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
