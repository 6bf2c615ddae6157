/** A play button, a waveform and a clock over one take. */

import { output, RATE } from "shared/player.js";
import { Wave } from "shared/wave.js";
import { type ReactNode, useEffect, useRef, useState } from "react";

import { clock } from "../format";
import { Icon } from "../icons";
import type { Take } from "../sound";
import { t } from "../strings";

let sounding: Take | null = null; // only one plays at a time

/** Silence. */
export function hush() {
  sounding?.player.pause();
}

interface Props {
  take: Take | null;
  what: string;
  /** Seconds it is thought to last while it is being made. */
  expected?: number;
  small?: boolean;
  /** Stands beneath, at the left of the clock. */
  children?: ReactNode;
}

export function AudioPlayer({ take, what, expected = 0, small, children }: Props) {
  const element = useRef<HTMLDivElement>(null);
  const wave = useRef<Wave>(null);
  const [playing, setPlaying] = useState(false);
  const [at, setAt] = useState({ position: 0, length: 0 });

  useEffect(() => {
    const drawing = element.current!; // kept: React forgets it before this effect ends
    wave.current ??= new Wave(drawing, RATE);
    const drawn = wave.current;
    drawn.clear(expected);
    setAt({ position: 0, length: 0 });
    setPlaying(false);
    if (!take) return;
    const { player } = take;
    let alive = true;
    const show = () => {
      drawn.move(player.position);
      drawing.setAttribute("aria-valuetext", player.length ? t.secondsOf(Math.floor(player.position), player.length) : t.noSound);
      setAt({ position: player.position, length: player.length });
    };
    const frame = () => {
      if (!alive || !player.playing) return;
      show();
      requestAnimationFrame(frame);
    };
    const changed = () => {
      setPlaying(player.playing);
      if (player.playing) {
        if (sounding !== take) hush();
        sounding = take;
        requestAnimationFrame(frame);
      }
      show();
    };
    drawn.onseek = ((seconds: number) => player.seek(seconds)) as () => void;
    if (player.length) drawn.append(player.samples());
    if (player.complete) drawn.finish();
    take.ondata = (samples) => {
      if (samples) drawn.append(samples);
      else drawn.finish();
      show();
    };
    player.onchange = changed;
    changed();
    return () => {
      alive = false;
      take.ondata = () => {};
      player.onchange = () => {};
    };
  }, [take, expected]);

  useEffect(() => () => take?.player.pause(), [take]);

  const label = playing ? t.pause(what) : t.play(what);
  return (
    <div className="audio-player">
      <div className="transport">
        <button
          type="button"
          className={small ? "round small" : "round"}
          aria-label={label}
          disabled={!take || (!playing && !at.length)}
          onClick={() => {
            output().resume();
            if (playing) take!.player.pause();
            else take!.player.play();
          }}
        >
          <Icon name={playing ? "pause" : "play"} />
        </button>
        <div ref={element} className={small ? "wave small" : "wave"} role="slider" tabIndex={0} aria-label={t.position(what)} aria-valuemin={0} aria-valuenow={0}>
          <canvas aria-hidden="true" />
        </div>
      </div>
      <div className="beneath">
        <div className="said">{children}</div>
        <p className="clock" aria-hidden="true">
          {clock(at.position)} / {clock(at.length)}
        </p>
      </div>
    </div>
  );
}
