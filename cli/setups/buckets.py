"""Clients of S3: the tenant is the bucket, the token is a key pair."""

from __future__ import annotations

from typing import Final

from cli.setups.place import File, Place, Recorder

_S3: Final = "/s3/{bucket}/{key}"


def _aws(place: Place) -> tuple[File, ...]:
    script = (
        place.shell(keys=True)
        + f"""
# Usage: ./upload.sh CALL_KEY FILE
aws s3 cp "$2" "s3://{place.tenant}/$1" --endpoint-url "{place.s3}" --region eu-west-2 --no-progress
"""
    )
    return (File(path="upload.sh", content=script),)


def _boto3(place: Place) -> tuple[File, ...]:
    given = f'"{place.token}"' if place.token else 'os.environ["CALLVAULT_TOKEN"]'
    script = f'''"""Usage: python upload.py CALL_KEY FILE"""

import os
import sys

import boto3
from botocore.config import Config

_, token_id, secret = {given}.split("_", 2)
s3 = boto3.client(
    "s3",
    endpoint_url=os.environ.get("CALLVAULT_S3", "{place.s3}"),
    region_name="eu-west-2",
    aws_access_key_id=f"tok_{{token_id}}",
    aws_secret_access_key=secret,
    config=Config(s3={{"addressing_style": "path"}}),
)
call_key, path = sys.argv[1:]
s3.upload_file(path, "{place.tenant}", call_key, ExtraArgs={{"ContentType": "audio/wav"}})
'''
    return (File(path="upload.py", content=script),)


def _rclone(place: Place) -> tuple[File, ...]:
    content = f"""[callvault]
type = s3
provider = Other
endpoint = {place.s3}
region = eu-west-2
access_key_id = {place.token_id}
secret_access_key = {place.secret}
force_path_style = true
no_check_bucket = true
"""
    script = f"""#!/usr/bin/env bash
# Usage: ./upload.sh CALL_KEY FILE        or, for what is being written: some-recorder | rclone rcat callvault:…
rclone copyto "$2" "callvault:{place.tenant}/$1"
"""
    return (File(path="~/.config/rclone/rclone.conf", content=content), File(path="upload.sh", content=script))


RECORDERS: Final = (
    Recorder(
        name="aws",
        title="AWS command line",
        source="https://docs.aws.amazon.com/cli/latest/reference/s3/cp.html",
        route=_S3,
        files=_aws,
    ),
    Recorder(
        name="boto3",
        title="boto3",
        source="https://boto3.amazonaws.com/v1/documentation/api/latest/guide/s3-uploading-files.html",
        route=_S3,
        files=_boto3,
    ),
    Recorder(
        name="rclone",
        title="rclone",
        source="https://rclone.org/s3/",
        route=_S3,
        files=_rclone,
        notes=(
            "A file that was sent before is passed over: size, time and ETag are compared.",
            "With the providers Minio and Ceph rclone compares the ETags of uploads in parts too.",
        ),
    ),
)
