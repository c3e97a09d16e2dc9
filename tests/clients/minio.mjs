// Uploads a file as a recorder with the MinIO SDK for JavaScript does: node minio.mjs file|stream FILE BUCKET KEY
import { createReadStream } from "node:fs";
import { Client } from "minio";

const [what, file, bucket, key] = process.argv.slice(2);
const { AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION } = process.env;
const { hostname, port } = new URL(AWS_ENDPOINT_URL_S3);
const client = new Client({
  endPoint: hostname,
  port: Number(port),
  useSSL: false,
  accessKey: AWS_ACCESS_KEY_ID,
  secretKey: AWS_SECRET_ACCESS_KEY,
  region: AWS_REGION,
  partSize: 5 << 20,
});
const type = { "Content-Type": "audio/wav" };
const answer =
  what === "file"
    ? await client.fPutObject(bucket, key, file, type)
    : await client.putObject(bucket, key, createReadStream(file), undefined, type);
const found = await client.statObject(bucket, key);
console.log(JSON.stringify({ ETag: answer.etag, found: { ETag: found.etag, size: found.size } }));
