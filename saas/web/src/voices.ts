import { useQuery } from "@tanstack/react-query";

import { api, ok } from "./api";

/** The user's voices, the newest first. */
export const useVoices = () => useQuery({ queryKey: ["voices"], queryFn: () => ok(api.GET("/api/voices")) });
