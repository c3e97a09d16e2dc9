// Plays one recorder with the `ws` client. argv: address, token or "", subprotocols by comma, compression "on" or "off".
// stdin: one JSON line a message, {"text": …} | {"binary": base64} | {"close": code} | {"sync": number}.
// stdout: {"open": …}, {"sync": number} once what came before is with the kernel, {"close": code, "reason": …}.
import { createInterface } from "node:readline";
import { WebSocket } from "ws";

const [address, token, subprotocols, compression] = process.argv.slice(2);
const tell = (fact) => process.stdout.write(`${JSON.stringify(fact)}\n`);
const socket = new WebSocket(address, subprotocols ? subprotocols.split(",") : [], {
  headers: token ? { Authorization: `Basic ${Buffer.from(`recorder:${token}`).toString("base64")}` } : {},
  perMessageDeflate: compression === "on",
});
socket.on("unexpected-response", (_, response) => {
  tell({ status: response.statusCode });
  process.exit(0);
});
socket.on("message", () => tell({ unexpected: true }));
socket.on("close", (code, reason) => {
  tell({ close: code, reason: reason.toString() });
  process.exit(0);
});
socket.on("error", () => {});
socket.on("open", async () => {
  tell({ open: { protocol: socket.protocol, extensions: socket.extensions } });
  const sent = (data, options) => new Promise((done) => socket.send(data, options, done));
  for await (const line of createInterface({ input: process.stdin })) {
    const message = JSON.parse(line);
    if ("text" in message) await sent(message.text, { binary: false });
    else if ("binary" in message) await sent(Buffer.from(message.binary, "base64"), { binary: true });
    else if ("close" in message) socket.close(...(message.close === null ? [] : [message.close]));
    else tell(message);
  }
});
