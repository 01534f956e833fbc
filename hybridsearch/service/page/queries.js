// The queries of a file that a person opens, as pairs of id and text. The service reads it, so it can have each format that
// --queries takes.

const FORMATS = { tsv: "tsv", jsonl: "jsonl", ndjson: "jsonl", json: "jsonl", csv: "csv" }; // others are text

export const ENDINGS = ".txt,.tsv,.jsonl,.ndjson,.json,.csv,.log";

export async function queriesOf(app, file) {
  const format = FORMATS[file.name.split(".").pop().toLowerCase()] ?? "txt";
  return app.api(app.at("workbench", app.index, "queries"), { content: textOf(new Uint8Array(await file.arrayBuffer())), format });
}

// The text for a field with one query in each line. `ids` are kept, unless they are those that lines without an id get.
export function linesOf(pairs, { ids = false } = {}) {
  const numbered = !ids || pairs.every(([id], place) => id === `q${place + 1}`);
  return pairs.map(([id, text]) => (numbered ? text : `${id}\t${text}`)).join("\n");
}

function textOf(bytes) {
  const [first, second] = bytes;
  const encoding = first === 0xff && second === 0xfe ? "utf-16le" : first === 0xfe && second === 0xff ? "utf-16be" : "utf-8";
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch {
    throw new Error("The file is no text in UTF-8 or UTF-16: save it as UTF-8.");
  }
}
