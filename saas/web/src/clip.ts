/** What is said of a clip when it is uploaded. */

const TYPES: Record<string, string> = { wav: "audio/wav", mp3: "audio/mpeg", flac: "audio/flac", ogg: "audio/ogg", opus: "audio/ogg", m4a: "audio/mp4", aac: "audio/aac", webm: "audio/webm", mp4: "video/mp4" };

/** The type of a clip without its parameters; browsers know none for some files. */
export function typeOf(blob: Blob, name: string): string {
  const type = blob.type.split(";")[0]!.trim().toLowerCase();
  if (/^(audio|video)\//.test(type)) return type;
  return TYPES[name.split(".").pop()!.toLowerCase()] ?? "audio/mpeg";
}

/** What was signed into the address. The browser writes the length itself. */
export function uploadHeaders(signed: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(signed).filter(([name]) => !/^(host|content-length)$/i.test(name)));
}
