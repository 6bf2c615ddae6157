import { type ReactNode, useId, useLayoutEffect, useRef } from "react";

import { Icon } from "../icons";
import { t } from "../strings";

/** A dialog that is open as long as it is drawn. The browser keeps the focus inside, and gives it back. */
export function Dialog({ title, onClose, children, alert }: { title: string; onClose: () => void; children: ReactNode; alert?: boolean }) {
  const element = useRef<HTMLDialogElement>(null);
  const id = useId();
  useLayoutEffect(() => {
    const dialog = element.current!;
    if (!dialog.open) dialog.showModal();
    return () => dialog.close(); // while it is still in the page: the focus goes back to what opened it
  }, []);
  return (
    <dialog
      ref={element}
      aria-labelledby={id}
      role={alert ? "alertdialog" : undefined}
      className={alert ? "small" : undefined}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onClick={(event) => event.target === element.current && !alert && onClose()}
    >
      <div className="dialog-top">
        <h2 id={id}>{title}</h2>
        {!alert && (
          <button type="button" className="quiet square" aria-label={t.close} onClick={onClose}>
            <Icon name="close" />
          </button>
        )}
      </div>
      {children}
    </dialog>
  );
}

/** Asks once more before something that cannot be undone. */
export function Sure(props: { title: string; hint: string; action: string; busy: boolean; onYes: () => void; onNo: () => void; children?: ReactNode }) {
  return (
    <Dialog title={props.title} onClose={props.onNo} alert>
      <p>{props.hint}</p>
      {props.children}
      <div className="actions end">
        <button type="button" onClick={props.onNo}>
          {t.cancel}
        </button>
        <button type="button" className="danger solid" disabled={props.busy} onClick={props.onYes}>
          {props.action}
        </button>
      </div>
    </Dialog>
  );
}
