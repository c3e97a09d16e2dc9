// Opens a page of another origin than the vault's in Chromium, and has it record. One JSON line with what it saw.
import { createServer } from "node:http";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { chromium } from "playwright-core";

const { executable, port, file, ours, theirs, place } = JSON.parse(process.argv[2]);
const absWorkingDir = dirname(fileURLToPath(import.meta.url));
const { outputFiles } = await build({ entryPoints: ["page.js"], absWorkingDir, bundle: true, format: "iife", write: false });
const page = `<!doctype html><title>portal</title><input type="file"><script>${outputFiles[0].text}</script>`;
const site = createServer((_, answer) => answer.setHeader("Content-Type", "text/html; charset=utf-8").end(page));
await new Promise((resolve) => site.listen(port, "localhost", resolve));

const browser = await chromium.launch({ executablePath: executable, args: ["--no-sandbox"] });
const context = await browser.newContext();
const asked = [];

async function opened() {
  const tab = await context.newPage();
  tab.on("request", (request) => asked.push([request.method(), request.headers()["upload-offset"] ?? null]));
  await tab.goto(`http://localhost:${port}/`);
  asked.length = 0;
  await tab.setInputFiles("input", file);
  return tab;
}

const first = await opened();
const elsewhere = await first.evaluate((ask) => window.upload(ask), theirs);
let halt;
const halted = new Promise((resolve) => (halt = resolve));
await first.exposeFunction("halted", halt);
first.evaluate((ask) => window.upload(ask), { ...ours, halt: 3 }).catch(() => {});
const offset = await halted;
await first.close();

const second = await opened();
const resumed = await second.evaluate((ask) => window.upload(ask), ours);
const requests = asked.filter(([method]) => method !== "OPTIONS");
const send = (...ask) => second.evaluate((each) => window.send(...each), ask);
const put = await send("PUT", place, ours.token, "audio", "audio/basic");
const head = await send("HEAD", place, ours.token);
const stranger = await send("HEAD", place, "cv_unknown");
const other = await send("HEAD", place, theirs.token);
await browser.close();
site.close();
process.stdout.write(JSON.stringify({ elsewhere, offset, resumed, requests, put, head, stranger, other }));
