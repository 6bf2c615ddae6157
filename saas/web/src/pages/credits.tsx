/** What one has, how it came and went, and how to get more. */

import { useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { useSearchParams } from "wouter";

import { api, type Config, type Entry, ok } from "../api";
import { useBalance } from "../app";
import { credits, moment, money } from "../format";
import { Empty, Pending, Problem } from "../parts/notices";
import { Plan } from "../parts/plan";
import { t } from "../strings";

const PAGE = 50;
const PATIENCE = 60_000; // ms for a payment to be confirmed before it is called late

export default function Credits({ config }: { config: Config }) {
  const { data, error, refetch } = useBalance();
  return (
    <>
      <h1>{t.credits.title}</h1>
      <Returned />
      {!data ? (
        <Pending error={error} refetch={refetch} rows={2} />
      ) : (
        <section className="panel have">
          <p>
            <span className="unseen">{t.credits.have} </span>
            <strong>{credits(data.balance)}</strong> {t.credits.unit}
          </p>
          <p className="hint">{t.credits.about}</p>
          {data.debt > 0 && <p className="notice bad">{t.credits.debt(data.debt)}</p>}
        </section>
      )}
      <Plan config={config} />
      <Packs packs={config.packs} />
      <Ledger />
    </>
  );
}

/** One has come back from the payment. The credits come by the webhook: before one is back, as a rule, or a little later. */
function Returned() {
  const [params, setParams] = useSearchParams();
  const paid = params.has("paid");
  const queries = useQueryClient();
  const { data } = useBalance();
  const [late, setLate] = useState(false);
  const before = balanceBefore();
  const there = data !== undefined && before !== null && data.balance - data.debt !== before;
  useEffect(() => {
    if (!paid || late) return;
    if (there) return void queries.invalidateQueries({ queryKey: ["ledger"] });
    const look = setInterval(() => queries.invalidateQueries({ queryKey: ["credits"] }), 1500);
    const end = setTimeout(() => setLate(true), PATIENCE);
    return () => (clearInterval(look), clearTimeout(end));
  }, [paid, there, late, queries]);
  if (!paid) return null;
  return (
    <div className="notice row" role="status">
      <p className="grow">{there ? t.credits.arrived : late ? t.credits.late : t.credits.paid}</p>
      <button type="button" className="link" onClick={() => setParams({}, { replace: true })}>
        {t.close}
      </button>
    </div>
  );
}

const BEFORE = "fishserve.balance";

/** What one had on leaving for the payment; null when that is not known, and then nothing tells whether the credits have come. */
function balanceBefore(): number | null {
  try {
    const kept = sessionStorage.getItem(BEFORE);
    return kept === null ? null : Number(kept);
  } catch {
    return null;
  }
}

interface Pack {
  id: string;
  credits: number;
  amount_cents: number;
  currency: string;
}

function Packs({ packs }: { packs: Config["packs"] }) {
  const { data } = useBalance();
  const buy = useMutation({
    mutationFn: (pack: string) => ok(api.POST("/api/billing/checkout", { body: { pack } })),
    onSuccess({ url }) {
      try {
        if (data) sessionStorage.setItem(BEFORE, String(data.balance - data.debt));
      } catch {
        // Storage is switched off: one is thanked all the same.
      }
      location.assign(url);
    },
  });
  return (
    <section aria-labelledby="buy">
      <h2 id="buy">{t.credits.buy}</h2>
      {packs.length ? (
        <ul className="packs">
          {(packs as unknown as Pack[]).map((pack) => {
            const price = money(pack.amount_cents, pack.currency);
            return (
              <li key={pack.id}>
                <button type="button" aria-label={t.credits.buyPack(pack.credits, price)} disabled={buy.isPending || buy.isSuccess} onClick={() => buy.mutate(pack.id)}>
                  <strong>{credits(pack.credits)}</strong>
                  <span>{t.credits.unit}</span>
                  <span className="price">{price}</span>
                </button>
              </li>
            );
          })}
        </ul>
      ) : (
        <p className="lead">{t.credits.noShop}</p>
      )}
      <Problem error={buy.error} />
    </section>
  );
}

function Ledger() {
  const { data, error, refetch, fetchNextPage, hasNextPage, isFetchingNextPage } = useInfiniteQuery({
    queryKey: ["ledger"],
    queryFn: ({ pageParam }) => ok(api.GET("/api/credits/ledger", { params: { query: { before: pageParam, limit: PAGE } } })),
    initialPageParam: undefined as number | undefined,
    getNextPageParam: (page) => (page.length === PAGE ? page.at(-1)!.id : undefined),
  });
  const entries = data?.pages.flat();
  return (
    <section aria-labelledby="ledger">
      <h2 id="ledger">{t.credits.ledger}</h2>
      {!entries ? (
        <Pending error={error} refetch={refetch} />
      ) : entries.length === 0 ? (
        <Empty icon="credits" title={t.credits.empty}>
          <p>{t.credits.emptyHint}</p>
        </Empty>
      ) : (
        <>
          <table>
            <thead>
              <tr>
                <th scope="col">{t.credits.when}</th>
                <th scope="col">{t.credits.what}</th>
                <th scope="col" className="number">
                  {t.credits.amount}
                </th>
                <th scope="col" className="number">
                  {t.credits.after}
                </th>
              </tr>
            </thead>
            <tbody>
              {entries.map((entry) => (
                <Line key={entry.id} entry={entry} />
              ))}
            </tbody>
          </table>
          {hasNextPage && (
            <button type="button" className="more" disabled={isFetchingNextPage} onClick={() => fetchNextPage()}>
              {t.more}
            </button>
          )}
        </>
      )}
    </section>
  );
}

function name({ kind, amount, receipt_url }: Entry) {
  if (kind === "settle" && amount === 0) return t.credits.exact;
  if (kind === "grant" && receipt_url) return t.credits.ofPlan; // an invoice paid for it
  return t.credits.kind[kind] ?? kind;
}

function Line({ entry }: { entry: Entry }) {
  const when = moment(entry.created_at);
  return (
    <tr>
      <td>
        <time dateTime={entry.created_at}>{when}</time>
      </td>
      <td>
        {name(entry)}{" "}
        {entry.receipt_url && (
          <a href={entry.receipt_url} target="_blank" rel="noreferrer" aria-label={t.credits.receiptOf(when)}>
            {t.credits.receipt}
          </a>
        )}
      </td>
      <td className={entry.amount > 0 ? "number plus" : "number"}>
        {entry.amount > 0 ? "+" : entry.amount < 0 ? "−" : ""}
        {credits(Math.abs(entry.amount))}
      </td>
      <td className="number">{credits(entry.balance_after)}</td>
    </tr>
  );
}
