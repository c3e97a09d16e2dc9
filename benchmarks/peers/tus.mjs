// A tus server over files, on any port of the loopback: `node tus.mjs DIRECTORY PORT_FILE`.
import { renameSync, writeFileSync } from "node:fs";
import { FileStore } from "@tus/file-store";
import { Server } from "@tus/server";

const [directory, portFile] = process.argv.slice(2);
const server = new Server({ path: "/files", datastore: new FileStore({ directory }) });
const listening = server.listen({ host: "127.0.0.1", port: 0 }, () => {
  writeFileSync(`${portFile}.new`, String(listening.address().port));
  renameSync(`${portFile}.new`, portFile);
});
