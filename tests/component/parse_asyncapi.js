// node parse_asyncapi.js FILE|URL: what AsyncAPI's own parser makes of a document.
// Prints each diagnostic that is an error or a warning and ends with 1, or one line about the document and ends with 0.
const { readFileSync } = require("node:fs");
const { Parser } = require("@asyncapi/parser");

const WORDS = ["error", "warning"];

async function main(where) {
  const text = where.startsWith("http") ? await (await fetch(where)).text() : readFileSync(where, "utf8");
  const { document, diagnostics } = await new Parser().parse(text);
  const bad = diagnostics.filter(({ severity }) => severity < WORDS.length);
  for (const { severity, path, message } of bad) console.log(WORDS[severity], path.join("."), message);
  if (bad.length || !document) return 1;
  console.log(`${document.version()}: ${document.channels().length} channels, ${document.operations().length} operations`);
  return 0;
}

main(process.argv[2]).then((code) => { process.exitCode = code; });
