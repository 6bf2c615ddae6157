"""What the page plays, sample by sample, in a real browser."""

import numpy as np
import pytest

from tests.browser import CHROMIUM
from tests.inference.server.visit import BRIEF, Visit, pcm

pytestmark = pytest.mark.system(CHROMIUM, "chromium")
RECORDER = """
registerProcessor("recorder", class extends AudioWorkletProcessor {
  constructor() {
    super();
    this.port.onmessage = () => this.port.postMessage(null); // after all blocks so far
  }
  process([input]) {
    if (input[0]) this.port.postMessage(input[0].slice());
    return true;
  }
});
"""
BURST = 896  # samples that a busy browser works out at once: its clock may be so much behind
LISTEN = """async ([recorder, behind]) => {
  const { output } = await import("/page/shared/player.js");
  const context = output();
  await context.audioWorklet.addModule(URL.createObjectURL(new Blob([recorder], { type: "text/javascript" })));
  const tap = new AudioWorkletNode(context, "recorder");
  const heard = [];
  let given = null;
  tap.port.onmessage = ({ data }) => (data ? heard.push(...data) : given(heard));
  window.heard = () => new Promise((resolve) => { given = resolve; tap.port.postMessage(null); });
  const resume = context.resume.bind(context);  // its clock stands until all is there: a busy machine may be late
  const clock = Object.getOwnPropertyDescriptor(BaseAudioContext.prototype, "currentTime");
  const time = () => clock.get.call(context);
  while (time() < 0.1) await new Promise((later) => setTimeout(later, 10));
  await context.suspend();
  for (let before = -1; time() !== before; await new Promise((later) => setTimeout(later, 100))) before = time();
  Object.defineProperty(context, "currentTime", { configurable: true, get: () => time() - behind / context.sampleRate });
  context.resume = async () => {};
  window.goOn = () => { delete context.currentTime; resume(); };
  const connect = AudioNode.prototype.connect;
  connect.call(tap, context.destination);  // it adds silence, and is asked for every block as the speakers are
  AudioNode.prototype.connect = function (to, ...rest) {
    if (to === context.destination) connect.call(this, tap);
    return connect.call(this, to, ...rest);
  };
}"""


@pytest.mark.parametrize("behind", [0, BURST])
def test_a_click_speaks_and_every_sample_is_played_in_order(browser, server, behind):
    visit = Visit(browser, server.url, bypass_csp=True).ready()
    visit.page.evaluate(LISTEN, [RECORDER, behind])
    visit.speak(seed=BRIEF)
    visit.says("status", "Done")
    visit.page.evaluate("window.goOn()")
    visit.says("go", "Speak")
    expected = pcm(server, seed=BRIEF)
    assert visit.clock.inner_text().split(" / ") == [f"0:0{len(expected) / 44_100:.1f}"] * 2
    assert visit.underruns.inner_text() == "no breaks"
    heard = np.rint(np.array(visit.page.evaluate("window.heard()")) * 32768).astype(int)
    heard, expected = np.trim_zeros(heard), np.trim_zeros(expected).astype(int)
    assert len(heard) == len(expected)
    assert np.abs(heard - expected).max() == 0
    visit.end()
