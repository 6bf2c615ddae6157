/** What was spoken: searched, heard, downloaded, deleted. */

import { useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import { fileName, save } from "shared/wav.js";
import { useDeferredValue, useState } from "react";
import { Link } from "wouter";

import { api, type Job, ok, plain, Refused } from "../api";
import { brief, duration, moment } from "../format";
import { Icon } from "../icons";
import { AudioPlayer } from "../parts/audio-player";
import { Sure } from "../parts/dialog";
import { Empty, Pending, Problem } from "../parts/notices";
import { type Take, takeOf } from "../sound";
import { t } from "../strings";
import { useVoices } from "../voices";

const PAGE = 25;
const running = (job: Job) => job.status === "queued" || job.status === "running";

export default function History() {
  const [words, setWords] = useState("");
  const search = useDeferredValue(words.trim());
  const { data, error, refetch, fetchNextPage, hasNextPage, isFetchingNextPage } = useInfiniteQuery({
    queryKey: ["jobs", search],
    queryFn: ({ pageParam }) => ok(api.GET("/api/jobs", { params: { query: { before: pageParam, limit: PAGE, search: search || undefined } } })),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => (page.length === PAGE ? page.at(-1)!.created_at : undefined),
    placeholderData: (before) => before,
    refetchInterval: ({ state }) => (state.data?.pages.some((page) => page.some(running)) ? 2000 : false),
  });
  const jobs = data?.pages.flat();
  return (
    <>
      <div className="heading">
        <h1>{t.history.title}</h1>
        <div className="search">
          <Icon name="search" />
          <input type="search" aria-label={t.history.search} placeholder={t.history.search} maxLength={200} value={words} onChange={(e) => setWords(e.target.value)} />
        </div>
      </div>
      {!jobs ? (
        <Pending error={error} refetch={refetch} rows={5} />
      ) : jobs.length ? (
        <>
          <ul className="rows">
            {jobs.map((job) => (
              <Row key={job.id} job={job} />
            ))}
          </ul>
          {hasNextPage && (
            <button type="button" className="more" disabled={isFetchingNextPage} onClick={() => fetchNextPage()}>
              {t.more}
            </button>
          )}
        </>
      ) : search ? (
        <p className="lead" role="status">
          {t.history.nothing(search)}
        </p>
      ) : (
        <Empty icon="history" title={t.history.empty}>
          <p>{t.history.emptyHint}</p>
          <Link href="/speak" className="button primary">
            {t.trouble.home}
          </Link>
        </Empty>
      )}
    </>
  );
}

function Row({ job }: { job: Job }) {
  const queries = useQueryClient();
  const { data: voices = [] } = useVoices();
  const [asked, setAsked] = useState(false);
  const [take, setTake] = useState<Take | null>(null);
  const path = { params: { path: { job_id: job.id } } };
  const label = brief(job.text ?? t.history.noText);
  const format = String(job.options.format ?? "mp3");
  const there = job.status === "succeeded" && job.bytes != null && !(job.expires_at && new Date(job.expires_at) < new Date());
  const voice = voices.find((v) => v.id === job.voice_id)?.name;

  async function file(): Promise<Blob> {
    const { url } = await ok(api.GET("/api/jobs/{job_id}", path)); // a fresh address: they live for minutes
    if (!url) throw new Refused(t.history.missing, 410);
    return (await plain(url)).blob();
  }
  const play = useMutation({
    mutationFn: async () => takeOf(await file()),
    onSuccess(heard) {
      setTake(heard);
      heard.player.play();
    },
  });
  const download = useMutation({ mutationFn: async () => save(await file(), fileName(job.text ?? t.history.title, format)) });
  const remove = useMutation({
    mutationFn: () => ok(api.DELETE("/api/jobs/{job_id}", path)),
    onSuccess() {
      setAsked(false);
      for (const name of ["jobs", "credits"]) queries.invalidateQueries({ queryKey: [name] });
    },
  });

  return (
    <li>
      <div className="line">
        <div className="grow">
          {job.text === null ? <p className="hint">{t.history.noText}</p> : <p className="said-words">{job.text}</p>}
          <p className="meta">
            <time dateTime={job.created_at}>{moment(job.created_at)}</time>
            {job.seconds != null && <span>{duration(job.seconds)}</span>}
            <span>{format === "opus" ? "Opus" : format.toUpperCase()}</span>
            {voice && <span>{voice}</span>}
            {!running(job) && <span>{job.charged ? t.history.cost(job.charged) : t.history.free}</span>}
            {job.status !== "succeeded" && <span className={running(job) ? "tag" : "tag bad"}>{t.history.status[job.status]}</span>}
            {there && job.expires_at && <span>{t.history.until(moment(job.expires_at))}</span>}
            {job.partial && <span className="tag">{t.history.partial}</span>}
            {job.status === "succeeded" && !there && <span className="tag">{t.history.gone}</span>}
          </p>
          {job.error && <p className="hint">{job.error}</p>}
        </div>
        <div className="tools">
          {there && format !== "pcm" && !take && (
            <button type="button" className="quiet square" aria-label={t.history.listen(label)} disabled={play.isPending} onClick={() => play.mutate()}>
              <Icon name="play" />
            </button>
          )}
          {there && (
            <button type="button" className="quiet square" aria-label={t.history.downloadOf(label)} disabled={download.isPending} onClick={() => download.mutate()}>
              <Icon name="download" />
            </button>
          )}
          <button type="button" className="quiet square" aria-label={t.history.deleteOf(label)} onClick={() => setAsked(true)}>
            <Icon name="trash" />
          </button>
        </div>
      </div>
      <Problem error={play.error ?? download.error} />
      {take && <AudioPlayer take={take} what={t.history.thePlay} small />}
      {asked && (
        <Sure title={t.history.sure} hint={t.history.sureHint} action={t.delete} busy={remove.isPending} onYes={() => remove.mutate()} onNo={() => setAsked(false)}>
          <Problem error={remove.error} />
        </Sure>
      )}
    </li>
  );
}
