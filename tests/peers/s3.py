"""A real S3 server, moto's, with one bucket. Prints its port as JSON; then answers lines of standard input, each an object's name,
with what the store has of it; ends with its standard input."""

import hashlib
import json
import logging
import sys

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "recordings"


def told(client, key):
    """What there is of an object; null when there is none."""
    try:
        found = client.get_object(Bucket=BUCKET, Key=key)
    except client.exceptions.NoSuchKey:
        return None
    digest = hashlib.sha256()
    size = 0
    for chunk in found["Body"].iter_chunks(1 << 20):
        digest.update(chunk)
        size += len(chunk)
    return {"bytes": size, "sha256": digest.hexdigest(), "type": found["ContentType"], "etag": found["ETag"]}


def main():
    logging.disable()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket=BUCKET)
    print(json.dumps({"port": port}), flush=True)
    for line in sys.stdin:
        key = line.strip()
        if key == "incomplete uploads":
            answer = len(client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []))
        else:
            answer = told(client, key)
        print(json.dumps(answer), flush=True)
    server.stop()


main()
