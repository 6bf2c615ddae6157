import { type RefObject, useEffect, useRef } from "react";

/** Names the window after the page, and moves the focus to its content once another page is shown. */
export function useArrival(main: RefObject<HTMLElement | null>, page: string | undefined, title: string) {
  const first = useRef(true);
  useEffect(() => {
    document.title = title;
    if (!first.current) {
      main.current!.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    first.current = false;
  }, [main, page, title]);
}
