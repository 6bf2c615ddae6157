/** The operator's desk: its frame, and which of its pages is shown. */

import "./desk.css";

import { type ReactNode, useEffect, useRef, useState } from "react";
import { Link, Redirect, Route, Switch, useLocation } from "wouter";

import type { Config } from "../api";
import { Icon } from "../icons";
import { useArrival } from "../parts/arrival";
import { Empty, OfflineBar } from "../parts/notices";
import { ThemeButton } from "../parts/theme";
import { t } from "../strings";
import { AtDesk } from "./act";
import { AccountPage, ActionsPage, JobPage, JobsPage, LedgerPage, PaymentsPage, PricesPage, QueuePage, RevenuePage, UsersPage } from "./pages";
import { d } from "./strings";

const PAGES = ["users", "ledger", "jobs", "payments", "revenue", "queue", "prices", "actions"] as const;

export default function Desk({ config }: { config: Config }) {
  const [place] = useLocation();
  const main = useRef<HTMLElement>(null);
  const nav = useRef<HTMLElement>(null);
  const [done, setDone] = useState<{ said: string; place: string } | null>(null); // it is said on the page where it was done
  const [dialog, show] = useState<ReactNode>(null);
  const page = PAGES.find((name) => place === `/admin/${name}` || place.startsWith(`/admin/${name}/`));
  useArrival(main, place, `${page ? `${d.pages[page]} · ` : ""}${d.name} · ${t.name}`);
  useEffect(() => {
    nav.current!.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" }); // on a phone they are a strip
  }, [page]);
  function tell(said: string) {
    setDone({ said, place });
    main.current!.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  return (
    <AtDesk value={{ config, tell, show }}>
      <div className="frame desk">
        <a className="skip" href="#main" onClick={(event) => (event.preventDefault(), main.current!.focus())}>
          {t.skip}
        </a>
        <header className="top">
          <Link href="/admin/users" className="brand">
            <Icon name="fish" />
            {t.name} <span>{d.name}</span>
          </Link>
          <Link href="/speak" className="back">
            {d.toApp}
          </Link>
          <ThemeButton />
        </header>
        <nav ref={nav} aria-label={d.nav}>
          {PAGES.map((name) => (
            <Link key={name} href={`/admin/${name}`} aria-current={name === page ? "page" : undefined}>
              {d.pages[name]}
            </Link>
          ))}
        </nav>
        <main id="main" ref={main} tabIndex={-1}>
          <OfflineBar />
          {done?.place === place && (
            <div className="notice row" role="status">
              <p className="grow">{done.said}</p>
              <button type="button" className="link" onClick={() => setDone(null)}>
                {t.close}
              </button>
            </div>
          )}
          <Switch>
            <Route path="/admin">{() => <Redirect to="/admin/users" replace />}</Route>
            <Route path="/admin/users" component={UsersPage} />
            <Route path="/admin/users/:who" component={AccountPage} />
            <Route path="/admin/ledger" component={LedgerPage} />
            <Route path="/admin/jobs" component={JobsPage} />
            <Route path="/admin/jobs/:id" component={JobPage} />
            <Route path="/admin/payments" component={PaymentsPage} />
            <Route path="/admin/revenue" component={RevenuePage} />
            <Route path="/admin/queue" component={QueuePage} />
            <Route path="/admin/prices" component={PricesPage} />
            <Route path="/admin/actions" component={ActionsPage} />
            <Route>
              {() => (
                <Empty icon="search" title={t.trouble.notFound} top>
                  <Link href="/admin/users">{d.pages.users}</Link>
                </Empty>
              )}
            </Route>
          </Switch>
        </main>
        {dialog}
      </div>
    </AtDesk>
  );
}
