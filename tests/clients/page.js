// Runs in the page of a site that records: uploads the chosen file with Uppy, or sends bytes with fetch.
import Uppy from "@uppy/core";
import Tus from "@uppy/tus";

const forever = new Promise(() => {});

// Returns how the upload ended; never, if it is to halt after so many accepted requests.
window.upload = async ({ endpoint, token, meta, chunkSize, halt = Infinity }) => {
  let accepted = 0;
  const uppy = new Uppy({ autoProceed: false }).use(Tus, {
    endpoint,
    headers: { Authorization: `Bearer ${token}` },
    chunkSize,
    retryDelays: [],
    removeFingerprintOnSuccess: true,
    onAfterResponse: (request, response) => {
      accepted += request.getMethod() === "PATCH" && response.getStatus() === 204;
      if (accepted < halt) return undefined;
      window.halted(response.getHeader("Upload-Offset"));
      return forever;
    },
  });
  const [file] = document.querySelector("input").files;
  uppy.addFile({ source: "page", name: file.name, type: meta.filetype, data: file, meta });
  const { successful, failed } = await uppy.upload();
  return { urls: successful.map((each) => each.uploadURL), failed: failed.map((each) => String(each.error)) };
};

// Returns what the page may see of an answer; null if the browser shows it nothing.
window.send = async (method, url, token, body, type) => {
  try {
    const headers = { Authorization: `Bearer ${token}`, ...(type && { "Content-Type": type }) };
    const answer = await fetch(url, { method, headers, ...(body && { body }) });
    return { status: answer.status, headers: Object.fromEntries(answer.headers), text: await answer.text() };
  } catch {
    return null;
  }
};
