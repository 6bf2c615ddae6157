/** 16-bit samples of a response as they arrive, in pieces of any size. */
export async function* samples(response) {
  const reader = response.body.getReader();
  let odd = new Uint8Array(0);
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const bytes = new Uint8Array(odd.length + value.length);
      bytes.set(odd);
      bytes.set(value, odd.length);
      odd = bytes.slice(bytes.length & ~1);
      if (bytes.length > 1) yield new Int16Array(bytes.buffer, 0, bytes.length >> 1);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
