/** The dialog that makes a voice: a clip, its words, a name, and the consent of whose voice it is. */

import { useQueryClient } from "@tanstack/react-query";
import { record, unable } from "shared/recorder.js";
import { type DragEvent, type FormEvent, useEffect, useRef, useState } from "react";

import { api, type Config, ok, plain, Refused } from "../api";
import { typeOf, uploadHeaders } from "../clip";
import { Icon } from "../icons";
import { AudioPlayer, hush } from "../parts/audio-player";
import { Dialog } from "../parts/dialog";
import { Field } from "../parts/field";
import { Problem } from "../parts/notices";
import { type Take, takeOf } from "../sound";
import { t } from "../strings";

const SHORTEST = 1; // s
const LONGEST = 90;
const MOST_BYTES = 25_000_000;

interface Clip {
  blob: Blob;
  name: string;
  take: Take;
}

export function NewVoice({ config, onClose }: { config: Config; onClose: () => void }) {
  const queries = useQueryClient();
  const [clip, setClip] = useState<Clip | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [step, setStep] = useState<string | null>(null);
  const [over, setOver] = useState(false);
  const [transcript, setTranscript] = useState("");
  const [name, setName] = useState("");
  const [consent, setConsent] = useState(false);
  const [level, setLevel] = useState<{ loudness: number; seconds: number } | null>(null);
  const recording = useRef<Awaited<ReturnType<typeof record>> | null>(null);
  const file = useRef<HTMLInputElement>(null);
  const gone = useRef(false);

  useEffect(() => {
    gone.current = false;
    return () => {
      gone.current = true;
      recording.current?.stop();
    };
  }, []);

  const fail = (words: string) => setError(new Refused(words, 400));

  async function take(blob: Blob, called: string) {
    setError(null);
    if (blob.size > MOST_BYTES) return fail(t.voices.large(MOST_BYTES));
    try {
      const heard = await takeOf(blob);
      const { length } = heard.player;
      if (length < SHORTEST || length > LONGEST) return fail(t.voices.length(length));
      setClip({ blob, name: called, take: heard });
    } catch {
      fail(t.voices.unreadable);
    }
  }

  async function toggleRecording() {
    setError(null);
    if (recording.current) return void recording.current.stop();
    if (unable()) return fail(t.voices.noRecorder);
    hush();
    try {
      recording.current = await record((loudness: number, seconds: number) => setLevel({ loudness, seconds: Math.floor(seconds) }), LONGEST - 1);
    } catch {
      return fail(t.voices.noMicrophone);
    }
    setClip(null);
    setLevel({ loudness: 0, seconds: 0 });
    const blob = await recording.current.stopped;
    recording.current = null;
    setLevel(null);
    if (gone.current) return;
    setTranscript((now) => now || t.voices.sentence);
    await take(blob, t.voices.clipName);
  }

  function drop(event: DragEvent) {
    event.preventDefault();
    setOver(event.type === "dragover");
    const [dropped] = event.type === "drop" ? event.dataTransfer.files : [];
    if (dropped) take(dropped, dropped.name);
  }

  async function submit(event: FormEvent) {
    event.preventDefault();
    setError(null);
    if (!clip) return fail(t.voices.needClip);
    const content_type = typeOf(clip.blob, clip.name);
    try {
      setStep(t.voices.preparing);
      const body = { name: name.trim(), transcript: transcript.trim(), content_type, bytes: clip.blob.size };
      const agreed = { consent: true as const, consent_version: config.consent.version };
      const { voice, upload } = await ok(api.POST("/api/voices", { body: { ...body, ...agreed } }));
      const path = { params: { path: { voice_id: voice.id } } };
      try {
        setStep(t.voices.uploading);
        await plain(upload.url, { method: "PUT", headers: uploadHeaders(upload.headers), body: clip.blob });
        setStep(t.voices.checking);
        await ok(api.POST("/api/voices/{voice_id}/confirm", path));
      } catch (e) {
        await ok(api.DELETE("/api/voices/{voice_id}", path)).catch(() => {}); // so that its name is free for another try
        throw e;
      }
      onClose();
    } catch (e) {
      setError(e);
    } finally {
      setStep(null);
      queries.invalidateQueries({ queryKey: ["voices"] });
    }
  }

  const status = level ? t.voices.recording(level.seconds) : clip ? t.voices.clip(clip.name, clip.take.player.length) : "";
  return (
    <Dialog title={t.voices.add} onClose={onClose}>
      <form className="stack" onSubmit={submit} onDragOver={drop} onDragLeave={drop} onDrop={drop}>
        <div>
          <p className="hint">{t.voices.read}</p>
          <p className="prompt">{t.voices.sentence}</p>
        </div>
        <div className={over ? "sources over" : "sources"}>
          <button type="button" className={level ? "live" : undefined} onClick={toggleRecording}>
            <Icon name={level ? "stop" : "record"} />
            {level ? t.voices.stopRecording : clip ? t.voices.recordAgain : t.voices.record}
          </button>
          <button type="button" onClick={() => file.current!.click()} disabled={level !== null}>
            <Icon name="upload" />
            {t.voices.choose}
          </button>
          <input
            ref={file}
            type="file"
            accept="audio/*,video/*"
            className="unseen"
            tabIndex={-1}
            aria-hidden="true"
            onChange={(event) => {
              const [picked] = event.target.files ?? [];
              if (picked) take(picked, picked.name);
              event.target.value = "";
            }}
          />
          <p className="hint">{t.voices.advice}</p>
        </div>
        {level && (
          <div className="level" role="meter" aria-label={t.voices.level} aria-valuemin={0} aria-valuemax={100} aria-valuenow={Math.round(100 * level.loudness)}>
            <span style={{ width: `${100 * level.loudness}%` }} />
          </div>
        )}
        {clip && (
          <AudioPlayer take={clip.take} what={t.voices.theClip} small>
            <p className="hint">{status}</p>
          </AudioPlayer>
        )}
        <p className="unseen" role="status">
          {status}
        </p>
        <div className="field">
          <label htmlFor="transcript">{t.voices.transcript}</label>
          <textarea id="transcript" rows={3} dir="auto" required maxLength={2000} value={transcript} onChange={(e) => setTranscript(e.target.value)} />
        </div>
        <Field label={t.voices.name} required maxLength={100} autoComplete="off" value={name} onChange={(e) => setName(e.target.value)} />
        <label className="tick">
          <input type="checkbox" required checked={consent} onChange={(e) => setConsent(e.target.checked)} />
          {config.consent.wording}
        </label>
        <Problem error={error} />
        <button className="primary" disabled={step !== null || level !== null} aria-busy={step !== null}>
          {step ?? t.voices.save}
        </button>
      </form>
    </Dialog>
  );
}
