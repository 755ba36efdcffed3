// Prints what the AsyncAPI parser says of a document, as JSON: its diagnostics, channels, and how many messages operations have.
// usage: node validate.cjs FILE, with NODE_PATH naming the folder in which the parser is installed
const { Parser, fromFile } = require("@asyncapi/parser");

async function main(path) {
  const { document, diagnostics } = await fromFile(new Parser(), path).parse();
  const found = diagnostics.map(({ code, message, severity, path: at }) => ({ code, message, severity, path: at.join(".") }));
  const channels = document ? document.channels().all().map((channel) => channel.id()) : [];
  const fields = document
    ? Object.fromEntries(document.messages().all().map((message) => [message.name(), Object.keys(message.payload().properties() || {})]))
    : {};
  console.log(JSON.stringify({ diagnostics: found, channels, fields }));
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exit(1);
});
