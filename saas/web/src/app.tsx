/** The frame: who is signed in, which page is shown, and what stands around it. */

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { lazy, Suspense, useEffect, useRef } from "react";
import { Link, Redirect, Route, Router, Switch, useLocation } from "wouter";

import { api, type Config, ok } from "./api";
import { credits } from "./format";
import { Icon, type IconName } from "./icons";
import { useOperator } from "./operator";
import { SignIn } from "./pages/sign-in";
import { Speak } from "./pages/speak";
import { useArrival } from "./parts/arrival";
import { Agreement, LegalLinks } from "./parts/legal";
import { Empty, Lines, OfflineBar, Pending } from "./parts/notices";
import { ThemeButton } from "./parts/theme";
import { useSigned } from "./session";
import { t } from "./strings";

const LATER = {
  voices: () => import("./pages/voices"),
  history: () => import("./pages/history"),
  keys: () => import("./pages/keys"),
  credits: () => import("./pages/credits"),
  settings: () => import("./pages/settings"),
};
const Voices = lazy(LATER.voices);
const History = lazy(LATER.history);
const Keys = lazy(LATER.keys);
const Credits = lazy(LATER.credits);
const Settings = lazy(LATER.settings);
const Report = lazy(() => import("./pages/report"));
const Desk = lazy(() => import("./desk/desk")); // not with the others: only operators load it

const PAGES = ["speak", "voices", "history", "keys", "credits", "settings"] as const;

/** The balance, asked again whenever the window is looked at. */
export const useBalance = () => useQuery({ queryKey: ["credits"], queryFn: () => ok(api.GET("/api/credits")) });

export function App({ config }: { config: Config }) {
  const { session } = useSigned();
  const queries = useQueryClient();
  const user = session?.user.id;
  const before = useRef(user);
  useEffect(() => {
    if (before.current && before.current !== user) queries.removeQueries({ predicate: (q) => q.queryKey[0] !== "config" });
    before.current = user;
  }, [user, queries]);

  if (session === undefined)
    return (
      <main className="alone">
        <Lines />
      </main>
    );
  return (
    <Router base={import.meta.env.BASE_URL.replace(/\/$/, "")}>
      <Switch>
        <Route path="/report">
          {() => (
            <Suspense fallback={<Lines rows={5} />}>
              <Report config={config} />
            </Suspense>
          )}
        </Route>
        <Route path="/admin/*?">{() => (session ? <AtDesk config={config} /> : <SignIn config={config} />)}</Route>
        <Route>{() => (session ? <Pages config={config} /> : <SignIn config={config} />)}</Route>
      </Switch>
    </Router>
  );
}

function Pages({ config }: { config: Config }) {
  return (
    <Frame config={config}>
      <Suspense fallback={<Lines rows={5} />}>
        <Switch>
          <Route path="/">{() => <Redirect to="/speak" replace />}</Route>
          <Route path="/speak">{() => <Speak config={config} />}</Route>
          <Route path="/voices">{() => <Voices config={config} />}</Route>
          <Route path="/history">{() => <History />}</Route>
          <Route path="/keys">{() => <Keys config={config} />}</Route>
          <Route path="/credits">{() => <Credits config={config} />}</Route>
          <Route path="/settings">{() => <Settings />}</Route>
          <Route path="/sign-in">{() => <Redirect to="/speak" replace />}</Route>
          <Route path="/sign-up">{() => <Redirect to="/speak" replace />}</Route>
          <Route>{() => <NotFound />}</Route>
        </Switch>
      </Suspense>
    </Frame>
  );
}

function NotFound() {
  return (
    <Empty icon="search" title={t.trouble.notFound} top>
      <Link href="/speak">{t.trouble.home}</Link>
    </Empty>
  );
}

/** The desk, which for anybody but an operator is not there. */
function AtDesk({ config }: { config: Config }) {
  const { is, error, refetch } = useOperator();
  if (!is) return <Frame config={config}>{is === false ? <NotFound /> : <Pending error={error} refetch={refetch} />}</Frame>;
  return (
    <Suspense
      fallback={
        <main className="alone">
          <Lines />
        </main>
      }
    >
      <Desk config={config} />
    </Suspense>
  );
}

function Frame({ config, children }: { config: Config; children: React.ReactNode }) {
  const [place, go] = useLocation();
  const { recovering } = useSigned();
  const operator = useOperator();
  const main = useRef<HTMLElement>(null);
  const page = PAGES.find((p) => place === `/${p}`);

  useEffect(() => {
    // Once the first page stands, the others are fetched, so that they open also when the connection is gone.
    const timer = setTimeout(() => Object.values(LATER).forEach((load) => load().catch(() => {})), 1000);
    return () => clearTimeout(timer);
  }, []);
  useEffect(() => {
    if (recovering) go("/settings", { replace: true }); // where a new password is chosen
  }, [recovering, go]);
  useArrival(main, page, page ? `${t.nav[page]} · ${t.name}` : t.name);

  return (
    <div className="frame">
      <a className="skip" href="#main" onClick={(event) => (event.preventDefault(), main.current!.focus())}>
        {t.skip}
      </a>
      <header className="top">
        <Link href="/speak" className="brand">
          <Icon name="fish" />
          {t.name}
        </Link>
        <Balance />
        {operator.is && <Link href="/admin/users">{t.desk}</Link>}
        <ThemeButton />
      </header>
      <nav aria-label={t.nav.label}>
        {PAGES.map((name) => (
          <Link key={name} href={`/${name}`} aria-current={name === page ? "page" : undefined}>
            <Icon name={name satisfies IconName} />
            <span>{t.nav[name]}</span>
          </Link>
        ))}
      </nav>
      <main id="main" ref={main} tabIndex={-1}>
        <OfflineBar />
        {children}
        <LegalLinks config={config} />
      </main>
      <Agreement config={config} />
    </div>
  );
}

function Balance() {
  const { data } = useBalance();
  return (
    <Link href="/credits" className="balance" aria-label={data ? t.balance(data.balance) : t.nav.credits}>
      <Icon name="credits" />
      {data ? credits(data.balance) : "–"}
    </Link>
  );
}
