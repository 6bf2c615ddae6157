/** Whether one is an operator, who has the desk. Only somebody with a role asks; the server knows which role it must be. */

import { useQuery } from "@tanstack/react-query";

import { api, ok, Refused } from "./api";
import { useSigned } from "./session";

/** `is`: undefined while it is not known. */
export function useOperator() {
  const { session } = useSigned();
  const role: unknown = session?.user.app_metadata.role;
  const { data, error, refetch } = useQuery({
    queryKey: ["desk", "me"],
    queryFn: () => ok(api.GET("/api/admin")),
    enabled: Boolean(role),
    staleTime: Infinity,
  });
  const not = !role || (error instanceof Refused && error.status === 404);
  return { is: data ? true : not ? false : undefined, error, refetch };
}
