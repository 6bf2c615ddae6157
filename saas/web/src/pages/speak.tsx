/** Type, see what it costs, hear it while it is made. */

import { keepPreviousData, useQuery, useQueryClient } from "@tanstack/react-query";
import { fileName, save } from "shared/wav.js";
import { type KeyboardEvent, useEffect, useRef, useState } from "react";
import { Link } from "wouter";

import { api, type Config, MINNOW, ok, Refused } from "../api";
import { useBalance } from "../app";
import { useDraft } from "../draft";
import { Icon } from "../icons";
import { AudioPlayer } from "../parts/audio-player";
import { Problem, useCountdown, useOnline } from "../parts/notices";
import { type Format, LIVE } from "../sound";
import { costing, saying, type Shown, Speaking } from "../speaking";
import { t } from "../strings";
import { useVoices } from "../voices";

const PAUSE = 350; // ms without a key before the price is asked for

function useSettled<T>(value: T, milliseconds: number): T {
  const [settled, set] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => set(value), milliseconds);
    return () => clearTimeout(timer);
  }, [value, milliseconds]);
  return settled;
}

export function Speak({ config }: { config: Config }) {
  const [text, setText] = useDraft("text", "");
  const [voice, setVoice] = useDraft("voice", "");
  const [format, setFormat] = useDraft("format", "mp3");
  const [shown, setShown] = useState<Shown | null>(null);
  const [playing, setPlaying] = useState(false);
  const speaking = useRef<Speaking>(null);
  const queries = useQueryClient();
  const online = useOnline();
  const { data: balance } = useBalance();
  const { data: voices = [] } = useVoices();
  const ready = voices.filter((v) => v.status === "ready");
  const chosen = ready.some((v) => v.id === voice) ? voice : "";
  const most = config.limits.characters;
  const length = [...text].length;
  const fits = length <= most;
  const settled = useSettled(text.trim(), PAUSE);
  const { data: price, isPlaceholderData } = useQuery({
    queryKey: ["estimate", settled],
    queryFn: () => ok(api.POST("/api/estimate", { body: { text: settled, speed: 1 } })),
    enabled: settled !== "" && [...settled].length <= most,
    placeholderData: keepPreviousData,
    staleTime: 60_000,
  });
  const fresh = text.trim() !== "" && price && !isPlaceholderData && settled === text.trim() ? price : null;
  const short = fresh && balance && fresh.credits > balance.balance ? fresh : null;
  const error = shown?.error;
  const wait = useCountdown(error instanceof Refused && error.status === 429 ? (error.retryAfter ?? 5) : 0, error);
  const busy = shown !== null && shown.phase !== "done" && shown.phase !== "settling";
  const active = busy || playing;

  useEffect(() => () => speaking.current?.stop(), []);
  useEffect(() => {
    const player = shown?.take.player;
    if (!player) return;
    const timer = setInterval(() => setPlaying(player.playing), 100);
    return () => clearInterval(timer);
  }, [shown?.take]);

  async function speak() {
    if (!text.trim() || !fits || short || wait || !online) return;
    speaking.current?.stop();
    const mine = new Speaking({ text, voice: chosen, format: format as Format }, (now) => speaking.current === mine && setShown(now));
    speaking.current = mine;
    await mine.run();
    for (const name of ["credits", "jobs", "ledger"]) queries.invalidateQueries({ queryKey: [name] });
  }

  function stop() {
    speaking.current?.stop();
    setPlaying(false);
  }

  function keys(event: KeyboardEvent) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      speak();
    } else if (event.key === "Escape" && active) stop();
  }

  return (
    <div onKeyDown={keys}>
      <h1 className="unseen">{t.speak.title}</h1>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (active) stop();
          else speak();
        }}
      >
        <div className="paper">
          <label className="unseen" htmlFor="text">
            {t.speak.text}
          </label>
          <textarea id="text" dir="auto" rows={6} placeholder={t.speak.placeholder} aria-describedby="count" value={text} onChange={(e) => setText(e.target.value)} />
          <div className="margin">
            {text ? (
              <p id="count" className={fits ? "count" : "count over"}>
                {fits ? t.speak.characters(length, most) : t.speak.tooLong(most)}
              </p>
            ) : (
              <p id="count" className="count">
                <button type="button" className="link" onClick={() => setText(t.speak.examples[Math.floor(Math.random() * t.speak.examples.length)]!)}>
                  {t.speak.example}
                </button>
              </p>
            )}
          </div>
        </div>
        <div className="controls">
          <div className="field grow">
            <label htmlFor="voice">{t.speak.voice}</label>
            <div className="row">
              <select id="voice" value={chosen} onChange={(e) => setVoice(e.target.value)}>
                <option value="">{t.speak.standard}</option>
                {ready.map((v) => (
                  <option key={v.id} value={v.id}>
                    {v.name}
                  </option>
                ))}
              </select>
              {ready.length === 0 && (
                <Link href="/voices" className="button">
                  {t.speak.addVoice}
                </Link>
              )}
            </div>
          </div>
          <div className="field">
            <label htmlFor="format">{t.speak.format}</label>
            <select id="format" value={format} onChange={(e) => setFormat(e.target.value)}>
              {LIVE.filter((f) => config.formats.includes(f)).map((f) => (
                <option key={f} value={f}>
                  {f === "opus" ? "Opus" : f.toUpperCase()}
                </option>
              ))}
            </select>
          </div>
          <button id="go" className="primary" aria-keyshortcuts="Control+Enter Meta+Enter" disabled={!active && (!text.trim() || !fits || Boolean(short) || wait > 0 || !online)}>
            <Icon name={active ? "stop" : "play"} />
            {active ? t.speak.stop : t.speak.go}
          </button>
        </div>
        <p className="hint">
          {t.model(config.model)}
          {config.model === MINNOW && chosen && <> · {t.pitchOnly}</>}
        </p>
        <p id="price" className="price" role="status">
          {text.trim() === "" ? (
            t.speak.costEmpty
          ) : !fits ? null : fresh ? (
            <>
              {t.speak.cost(fresh.credits, fresh.seconds)}
              {balance && !short && <span> {t.speak.left(balance.balance)}</span>}
            </>
          ) : (
            t.speak.costWait
          )}
        </p>
        {short && (
          <div className="problem" role="alert">
            <p>{t.speak.tooFew(short.credits, balance!.balance)}</p>
            <Link href="/credits">{t.speak.buy}</Link>
          </div>
        )}
        {!(short && error instanceof Refused && error.status === 402) && <Problem error={error} />}
      </form>
      <section className="sound" aria-label={t.speak.sound}>
        <AudioPlayer take={shown?.take ?? null} what={t.speak.theSound} expected={busy ? (price?.seconds ?? 0) : 0}>
          <p role="status" id="status">
            {shown ? saying(shown) : t.speak.none}
          </p>
        </AudioPlayer>
        <div className="outcome">
          <p id="cost" role="status">
            {shown && costing(shown)}
          </p>
          {shown?.file && (
            <button type="button" onClick={() => save(shown.file!, fileName(speaking.current!.asked.text, speaking.current!.asked.format))}>
              <Icon name="download" />
              {t.download}
            </button>
          )}
        </div>
      </section>
    </div>
  );
}
