"""S3 clients that nobody here wrote, pointed at a vault that is being served."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import botocore.session
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from tests.clients import CLIENTS, node_modules

BIN = Path(sys.executable).parent
BUCKET = "northfield"
REGION = "eu-west-2"
HEAD = b"RIFF\xff\xff\xff\xffWAVEfmt "


_SESSION = boto3.session.Session(botocore_session=botocore.session.Session())
"""Shared: it reads the description of the service once."""


@dataclass(frozen=True, kw_only=True)
class Recorder:
    """Where the vault is and what signs for one recorder."""

    url: str
    access_key: str
    secret_key: str = field(repr=False)

    @classmethod
    def of(cls, url, token):
        identifier, _, secret = token.removeprefix("cv_").partition("_")
        return cls(url=url, access_key=f"tok_{identifier}", secret_key=secret)

    @property
    def endpoint(self):
        return self.url + "/s3"

    @property
    def host(self):
        return self.url.removeprefix("http://")

    @property
    def environment(self):
        """AWS's own variables, and nothing of this machine's user."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def boto(self, *, endpoint=None, attempts=1, addressing="path", verify=None, **settings):
        """Return a boto3 client; its methods block."""
        return _SESSION.client(
            "s3",
            endpoint_url=endpoint or self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
            verify=verify,
            config=Config(s3={"addressing_style": addressing}, retries={"max_attempts": attempts}, **settings),
        )


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A finished program."""

    code: int
    output: str


async def run(*command, env=None, stdin=None):
    """Run a program and return its exit code and everything it printed."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        env=env,
        stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate(stdin)
    return Ran(code=process.returncode, output=output.decode(errors="replace"))


def aws(recorder, *arguments):
    """Run the AWS command line."""
    return run(BIN / "aws", "s3api" if arguments[0][0].islower() and "-" in arguments[0] else "s3", *arguments,
               env=recorder.environment)  # fmt: skip


def rclone_command(recorder, *arguments, provider="Other"):
    """Return command and environment of rclone with a remote `vault:` made on the fly."""
    settings = {
        "TYPE": "s3",
        "PROVIDER": provider,
        "ACCESS_KEY_ID": recorder.access_key,
        "SECRET_ACCESS_KEY": recorder.secret_key,
        "ENDPOINT": recorder.endpoint,
        "REGION": REGION,
        "FORCE_PATH_STYLE": "true",
        "NO_CHECK_BUCKET": "true",
    }
    remote = {f"RCLONE_CONFIG_VAULT_{name}": value for name, value in settings.items()}
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "RCLONE_CONFIG": "/dev/null", **remote}
    return [BIN / "rclone", *arguments, "--retries=1", "--low-level-retries=3"], env


def rclone(recorder, *arguments, provider="Other"):
    """Run rclone."""
    command, env = rclone_command(recorder, *arguments, provider=provider)
    return run(*command, env=env)


def s3cmd(recorder, *arguments):
    """Run s3cmd, which can only be told a host and a port."""
    options = [
        "--config=/dev/null",
        f"--access_key={recorder.access_key}",
        f"--secret_key={recorder.secret_key}",
        f"--host={recorder.host}",
        f"--host-bucket={recorder.host}",
        f"--region={REGION}",
        "--no-ssl",
        "--no-progress",
    ]
    return run(BIN / "s3cmd", *options, *arguments, env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"})


async def javascript(recorder, what, path, key, *, script="s3.mjs"):
    """Run the AWS SDK for JavaScript: `put`, or `upload` in parts with lib-storage; `minio.mjs`: `file` or `stream`."""
    node_modules()
    ran = await run("node", CLIENTS / script, what, path, BUCKET, key, env=recorder.environment)
    return ran, json.loads(ran.output.splitlines()[-1]) if ran.code == 0 else None


def signed(recorder, method, path, *, body=b"", payload=None, secret=None, host=None, **headers):
    """Return the headers of a request as botocore signs it; `payload` replaces the body's hash, underscores hyphens."""
    url = f"http://{host or recorder.host}{path}"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if payload is not None:
        named["x-amz-content-sha256"] = payload
    request = AWSRequest(method=method, url=url, data=body, headers=named)
    credentials = Credentials(recorder.access_key, secret or recorder.secret_key)
    auth = S3SigV4Auth(credentials, "s3", REGION)
    if payload is not None:
        request.context["payload_signing_enabled"] = False
        auth.payload = lambda _: payload
    auth.add_auth(request)
    return dict(request.headers.items())
