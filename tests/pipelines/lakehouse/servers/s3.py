"""An S3 server of the tests' own."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import boto3
from moto.server import ThreadedMotoServer

from pipelines.processes import HOST, find_free_port


@dataclass(frozen=True)
class S3:
    """Its address, and what pyiceberg must know to use it."""

    endpoint: str
    bucket: str
    properties: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        known = {
            "s3.endpoint": self.endpoint,
            "s3.access-key-id": "reel",
            "s3.secret-access-key": "of the tests",
            "s3.region": "us-east-1",
        }
        object.__setattr__(self, "properties", known)

    def objects(self, prefix: str) -> set[str]:
        """The keys below `prefix`, asked of the server itself."""
        pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return {one["Key"] for page in pages for one in page.get("Contents", [])}

    def put(self, key: str, body: bytes) -> None:
        """Store an object."""
        self._client().put_object(Bucket=self.bucket, Key=key, Body=body)

    def _client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.properties["s3.access-key-id"],
            aws_secret_access_key=self.properties["s3.secret-access-key"],
            region_name=self.properties["s3.region"],
        )


@contextmanager
def s3(bucket: str) -> Iterator[S3]:
    """A server with an empty bucket, for the length of the block."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else a line for every request
    port = find_free_port()
    server = ThreadedMotoServer(ip_address=HOST, port=port, verbose=False)
    server.start()
    try:
        running = S3(f"http://{HOST}:{port}", bucket)
        running._client().create_bucket(Bucket=bucket)
        yield running
    finally:
        server.stop()
