/** Voices of one's own: made from a clip, heard, renamed, deleted. */

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { useLocation } from "wouter";

import { api, type Config, MINNOW, ok, plain, type Voice } from "../api";
import { choose } from "../draft";
import { duration } from "../format";
import { Icon } from "../icons";
import { AudioPlayer } from "../parts/audio-player";
import { Sure } from "../parts/dialog";
import { Empty, Pending, Problem } from "../parts/notices";
import { type Take, takeOf } from "../sound";
import { t } from "../strings";
import { useVoices } from "../voices";
import { NewVoice } from "./new-voice";

export default function Voices({ config }: { config: Config }) {
  const { data, error, refetch } = useVoices();
  const [adding, setAdding] = useState(false);
  const add = (
    <button type="button" className="primary" onClick={() => setAdding(true)}>
      <Icon name="voices" />
      {t.voices.add}
    </button>
  );
  return (
    <>
      <div className="heading">
        <div>
          <h1>{t.voices.title}</h1>
          <p className="lead">{t.voices.about}</p>
          {config.model === MINNOW && <p className="hint">{t.pitchOnly}</p>}
        </div>
        {data && data.length > 0 && add}
      </div>
      {!data ? (
        <Pending error={error} refetch={refetch} />
      ) : data.length === 0 ? (
        <Empty icon="voices" title={t.voices.empty}>
          <p>{t.voices.emptyHint}</p>
          {add}
        </Empty>
      ) : (
        <ul className="rows">
          {data.map((voice) => (
            <Row key={voice.id} voice={voice} />
          ))}
        </ul>
      )}
      {adding && <NewVoice config={config} onClose={() => setAdding(false)} />}
    </>
  );
}

function Row({ voice }: { voice: Voice }) {
  const queries = useQueryClient();
  const [, go] = useLocation();
  const [doing, setDoing] = useState<"rename" | "delete" | null>(null);
  const [take, setTake] = useState<Take | null>(null);
  const path = { params: { path: { voice_id: voice.id } } };
  const changed = () => {
    setDoing(null);
    queries.invalidateQueries({ queryKey: ["voices"] });
  };
  const play = useMutation({
    mutationFn: async () => {
      const { clip_url } = await ok(api.GET("/api/voices/{voice_id}", path));
      return takeOf(await (await plain(clip_url!)).blob());
    },
    onSuccess(heard) {
      setTake(heard);
      heard.player.play();
    },
  });
  const rename = useMutation({ mutationFn: (name: string) => ok(api.PATCH("/api/voices/{voice_id}", { ...path, body: { name } })), onSuccess: changed });
  const remove = useMutation({ mutationFn: () => ok(api.DELETE("/api/voices/{voice_id}", path)), onSuccess: changed });

  return (
    <li>
      <div className="line">
        {doing === "rename" ? (
          <form
            className="row grow"
            onSubmit={(event: FormEvent<HTMLFormElement>) => {
              event.preventDefault();
              rename.mutate(String(new FormData(event.currentTarget).get("name")).trim());
            }}
          >
            <input name="name" aria-label={t.voices.newName(voice.name)} defaultValue={voice.name} required maxLength={100} autoFocus onKeyDown={(e) => e.key === "Escape" && setDoing(null)} />
            <button className="primary" disabled={rename.isPending}>
              {t.save}
            </button>
            <button type="button" onClick={() => setDoing(null)}>
              {t.cancel}
            </button>
          </form>
        ) : (
          <>
            <div className="grow">
              <h2>{voice.name}</h2>
              <p className="said-words">“{voice.transcript}”</p>
              <p className="meta">
                {voice.seconds != null && <span>{duration(voice.seconds)}</span>}
                {voice.status === "pending" && <span className="tag">{t.voices.pending}</span>}
                {voice.status === "refused" && <span className="tag bad">{t.voices.refused}</span>}
                {voice.status === "blocked" && <span className="tag bad">{t.voices.blocked}</span>}
                {voice.reason && <span>{voice.reason}</span>}
              </p>
            </div>
            <div className="tools">
              {voice.status === "ready" && (
                <>
                  <button
                    type="button"
                    onClick={() => {
                      choose(voice.id);
                      go("/speak");
                    }}
                  >
                    {t.voices.use}
                  </button>
                  {!take && (
                    <button type="button" className="quiet square" aria-label={t.voices.listen(voice.name)} disabled={play.isPending} onClick={() => play.mutate()}>
                      <Icon name="play" />
                    </button>
                  )}
                </>
              )}
              <button type="button" className="quiet square" aria-label={t.voices.renameOf(voice.name)} onClick={() => setDoing("rename")}>
                <Icon name="edit" />
              </button>
              <button type="button" className="quiet square" aria-label={t.voices.deleteOf(voice.name)} onClick={() => setDoing("delete")}>
                <Icon name="trash" />
              </button>
            </div>
          </>
        )}
      </div>
      <Problem error={rename.error ?? play.error} />
      {take && <AudioPlayer take={take} what={voice.name} small />}
      {doing === "delete" && (
        <Sure title={t.voices.sure(voice.name)} hint={t.voices.sureHint} action={t.delete} busy={remove.isPending} onYes={() => remove.mutate()} onNo={() => setDoing(null)}>
          <Problem error={remove.error} />
        </Sure>
      )}
    </li>
  );
}
