"""Records with the boto3 of its Python: `python boto3_newest.py JSON`; says in JSON what it found."""

import io
import json
import sys

import boto3
import botocore
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

ALGORITHMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")


def main(url, bucket, path):
    client = boto3.client("s3", endpoint_url=url, config=Config(s3={"addressing_style": "path"}))
    with open(path, "rb") as file:  # noqa: PTH123  # the client wants a file
        audio = file.read()
    short = audio[:300_000]
    whole = client.put_object(Bucket=bucket, Key="whole", Body=short, ContentType="audio/wav")
    headers = client.put_object(Bucket=bucket, Key="stream", Body=io.BytesIO(short))["ResponseMetadata"]["HTTPHeaders"]
    for algorithm in ALGORITHMS:
        client.put_object(Bucket=bucket, Key=algorithm, Body=short, ChecksumAlgorithm=algorithm)
    client.upload_file(path, bucket, "parts.wav")
    few = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    client.upload_file(path, bucket, "crc64.wav", Config=few, ExtraArgs={"ChecksumAlgorithm": "CRC64NVME"})
    client.create_multipart_upload(Bucket=bucket, Key="open.wav")
    return {
        "version": [boto3.__version__, botocore.__version__],
        "etag": whole["ETag"],
        "recording": headers["recording-id"],
        "heads": {
            key: [(found := client.head_object(Bucket=bucket, Key=key))["ContentLength"], found["ETag"]]
            for key in ("whole", "stream", *ALGORITHMS, "parts.wav", "crc64.wav")
        },
        "open": [each["Key"] for each in client.list_multipart_uploads(Bucket=bucket)["Uploads"]],
        "damaged": _refusal(
            client.put_object, Bucket=bucket, Key="damaged", Body=short, ChecksumCRC64NVME="AAAAAAAAAAA="
        ),
        "get": _refusal(client.get_object, Bucket=bucket, Key="whole"),
        "list": _refusal(client.list_objects_v2, Bucket=bucket),
    }


def _refusal(call, **named):
    try:
        call(**named)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return None


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))  # noqa: T201
