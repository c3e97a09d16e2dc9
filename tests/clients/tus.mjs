// Uploads one file with tus-js-client or @uppy/tus, as a recorder's script would. One JSON line an event on stdout.
import { createReadStream, openAsBlob } from "node:fs";
import { ClientRequest } from "node:http";
import { basename } from "node:path";
import { PassThrough } from "node:stream";
import * as tus from "tus-js-client";

const ask = JSON.parse(process.argv[2]);
const { file, url, token, metadata, stream = false, storage = null, uppy = false, pause = 0, halt = null, options = {} } = ask;
const say = (event, more = {}) => process.stdout.write(`${JSON.stringify({ event, ...more })}\n`);
const common = {
  endpoint: url,
  headers: { Authorization: `Bearer ${token}` },
  retryDelays: [100, 200, 400, 800, 1600, 1600, 1600],
  onBeforeRequest: () => new Promise((resolve) => setTimeout(resolve, 1000 * pause)),
  ...options,
};

if (halt !== null) {
  // Stop within the request, at that many bytes of bodies: whoever kills the client then cannot come after its end.
  // Not in onProgress, which is told every 100 ms at most: a whole body can go out in between.
  const write = ClientRequest.prototype.write;
  let given = 0;
  ClientRequest.prototype.write = function (chunk, ...rest) {
    const more = write.call(this, chunk, ...rest);
    given += chunk.length;
    if (given >= halt) {
      say("halted", { given });
      process.kill(process.pid, "SIGSTOP");
    }
    return more;
  };
}

if (uppy) {
  const { default: Uppy } = await import("@uppy/core");
  const { default: Tus } = await import("@uppy/tus");
  const plan = new Uppy({ autoProceed: false }).use(Tus, { ...common, storeFingerprintForResuming: false });
  // @uppy/tus hands the file's data to tus-js-client, which in node takes a Buffer where a browser has a Blob.
  const data = Buffer.from(await (await openAsBlob(file)).arrayBuffer());
  plan.addFile({ name: basename(file), type: metadata.filetype, data, meta: metadata });
  const { successful, failed } = await plan.upload();
  for (const each of successful) say("success", { url: each.uploadURL ?? each.tus?.uploadUrl });
  for (const each of failed) say("error", { message: String(each.error) });
  process.exit(failed.length ? 1 : 0);
}

// Of a file's own stream tus-js-client knows the size; one that comes through a pipe is as good as live.
const source = stream ? createReadStream(file).pipe(new PassThrough()) : createReadStream(file);
const upload = new tus.Upload(source, {
  ...common,
  metadata,
  ...(storage === null ? {} : { urlStorage: new tus.FileUrlStorage(storage), fingerprint: async () => file }),
  onUploadUrlAvailable: () => say("url", { url: upload.url }),
  onProgress: (sent, total) => say("progress", { sent, total }),
  onChunkComplete: (size, accepted) => say("chunk", { accepted }),
  onSuccess: () => say("success", { url: upload.url }),
  onError: (error) => {
    say("error", { message: String(error), status: error.originalResponse?.getStatus() });
    process.exitCode = 1;
  },
});
if (storage !== null) {
  const [previous] = await upload.findPreviousUploads();
  if (previous) {
    say("resumed", { url: previous.uploadUrl });
    upload.resumeFromPreviousUpload(previous);
  }
}
upload.start();
