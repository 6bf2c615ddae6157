/** What the desk asks for. All of it is asked again after each act. */

import { useInfiniteQuery, useQuery } from "@tanstack/react-query";

import { api, ok } from "../api";
import type { components } from "../schema";

type Schemas = components["schemas"];
export type User = Schemas["DeskUser"];
export type Job = Schemas["DeskJob"];
export type Key = Schemas["DeskKey"];
export type Payment = Schemas["DeskPayment"];
export type Entry = Schemas["DeskEntry"];
export type Action = Schemas["DeskAct"];

const PAGE = 50;

export const useAccount = (who: string | null) =>
  useQuery({ queryKey: ["desk", "account", who], enabled: who !== null, queryFn: () => ok(api.GET("/api/admin/account", { params: { query: { who: who! } } })) });

export const usePrices = () => useQuery({ queryKey: ["desk", "prices"], queryFn: () => ok(api.GET("/api/admin/prices")) });

/** Pages of rows, the newest first; `cursor` is what the next one begins after. */
function usePages<Row, Cursor>(key: unknown[], fetchPage: (before: Cursor | undefined) => Promise<Row[]>, cursor: (row: Row) => Cursor) {
  return useInfiniteQuery({
    queryKey: ["desk", ...key],
    queryFn: ({ pageParam }) => fetchPage(pageParam as Cursor | undefined),
    initialPageParam: undefined as Cursor | undefined,
    getNextPageParam: (page: Row[]) => (page.length === PAGE ? cursor(page.at(-1)!) : undefined),
  });
}

export const useLedger = (user_id?: string) =>
  usePages(["ledger", user_id], (before?: number) => ok(api.GET("/api/admin/ledger", { params: { query: { before, user_id, limit: PAGE } } })), (row) => row.id);
export const useJobs = (user_id?: string, status?: Job["status"]) =>
  usePages(["jobs", user_id, status], (before?: string) => ok(api.GET("/api/admin/jobs", { params: { query: { before, user_id, status, limit: PAGE } } })), (row) => row.created_at);
export const usePayments = (user_id?: string) =>
  usePages(["payments", user_id], (before?: string) => ok(api.GET("/api/admin/payments", { params: { query: { before, user_id, limit: PAGE } } })), (row) => row.created_at);
export const useActions = (user_id?: string) =>
  usePages(["actions", user_id], (before?: number) => ok(api.GET("/api/admin/actions", { params: { query: { before, user_id, limit: PAGE } } })), (row) => row.id);
