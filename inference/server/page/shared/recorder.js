/** The microphone, for one clip. */

/** Why nothing can be recorded here, or null. */
export function unable() {
  if (!navigator.mediaDevices) return "Browsers lend the microphone only to pages on https or localhost. A file works everywhere.";
  if (!globalThis.MediaRecorder) return "This browser cannot record. A file works everywhere.";
  return null;
}

/**
 * Begin to record; throws a sentence when the microphone is not to be had. `onlevel(loudness, seconds)`, loudness 0 to 1, is called
 * about thirty times a second. `stop()` gives the clip; it stops by itself after `longest` seconds, which `stopped` waits for.
 */
export async function record(onlevel, longest) {
  let stream;
  try {
    // The voice as it is: what makes calls clear (echo, noise, gain) colours it.
    const plain = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
  } catch (e) {
    if (e.name === "NotAllowedError") throw new Error("The browser does not let this page use the microphone. Allow it beside the address.");
    if (e.name === "NotFoundError") throw new Error("There is no microphone. Plug one in, or choose a file.");
    throw new Error(`The microphone cannot be used: ${e.message}`);
  }
  const context = new AudioContext(); // not the player's: some browsers connect a microphone only at its own rate
  const source = new MediaStreamAudioSourceNode(context, { mediaStream: stream });
  const meter = new AnalyserNode(context, { fftSize: 2048 });
  source.connect(meter);
  const recorder = new MediaRecorder(stream);
  const pieces = [];
  const began = performance.now();
  const samples = new Float32Array(meter.fftSize);
  const timer = setInterval(() => {
    meter.getFloatTimeDomainData(samples);
    const seconds = (performance.now() - began) / 1000;
    onlevel(Math.sqrt(samples.reduce((peak, s) => Math.max(peak, Math.abs(s)), 0)), seconds);
    if (seconds >= longest) stop();
  }, 33);
  recorder.ondataavailable = (event) => pieces.push(event.data);
  const stopped = new Promise((resolve) => (recorder.onstop = () => resolve(new Blob(pieces, { type: recorder.mimeType }))));
  recorder.start();

  function stop() {
    clearInterval(timer);
    if (context.state !== "closed") context.close();
    if (recorder.state !== "inactive") recorder.stop();
    for (const track of stream.getTracks()) track.stop();
    return stopped;
  }

  return { stop, stopped };
}
