// Uploads a file as a recorder with the AWS SDK for JavaScript does: node s3.mjs put|upload FILE BUCKET KEY
import { createReadStream, readFileSync } from "node:fs";
import { PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";

const [what, file, Bucket, Key] = process.argv.slice(2);
const client = new S3Client({ forcePathStyle: true });
const answer =
  what === "put"
    ? await client.send(new PutObjectCommand({ Bucket, Key, Body: readFileSync(file), ContentType: "audio/wav" }))
    : await new Upload({
        client,
        params: { Bucket, Key, Body: createReadStream(file), ContentType: "audio/wav" },
        partSize: 5 << 20,
        queueSize: 4,
      }).done();
console.log(JSON.stringify({ ETag: answer.ETag }));
