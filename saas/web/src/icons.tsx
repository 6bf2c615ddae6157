/** The pictures on buttons, drawn like the playground's. */

const LINE = { fill: "none", stroke: "currentColor", strokeWidth: 1.8, strokeLinecap: "round", strokeLinejoin: "round" } as const;

const SHAPES = {
  fish: <path {...LINE} strokeWidth={2} d="M2 6.5v11M5 9.5v5M8 9v6M11 5.5v13M14 4.5v15M17 6.5v11M20 9.5v5M22.5 12v0" />,
  play: <path fill="currentColor" d="M8 5.3v13.4a.8.8 0 0 0 1.2.7l10.6-6.7a.8.8 0 0 0 0-1.4L9.2 4.6A.8.8 0 0 0 8 5.3z" />,
  pause: <path fill="currentColor" d="M7 4.5h3a.5.5 0 0 1 .5.5v14a.5.5 0 0 1-.5.5H7a.5.5 0 0 1-.5-.5V5a.5.5 0 0 1 .5-.5zm7 0h3a.5.5 0 0 1 .5.5v14a.5.5 0 0 1-.5.5h-3a.5.5 0 0 1-.5-.5V5a.5.5 0 0 1 .5-.5z" />,
  stop: <rect x="6" y="6" width="12" height="12" rx="1.5" fill="currentColor" />,
  record: <circle cx="12" cy="12" r="6.5" fill="currentColor" />,
  download: <path {...LINE} d="M12 4v11m-4.5-4L12 15.5l4.5-4.5M5 19.5h14" />,
  upload: <path {...LINE} d="M12 15.5V4.5M7.5 9L12 4.5 16.5 9M5 19.5h14" />,
  copy: <path {...LINE} d="M9 8.5h9.5V20H9zM15 8.5V4H5.5v11.5H9" />,
  close: <path {...LINE} d="M6 6l12 12M18 6L6 18" />,
  light: <path {...LINE} d="M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4" />,
  dark: <path {...LINE} d="M19.5 14.2A8 8 0 0 1 9.8 4.5a8 8 0 1 0 9.7 9.7z" />,
  speak: <path {...LINE} d="M4 5h16v11h-9l-4.5 3.5V16H4zM8 9h8M8 12.2h5" />,
  voices: <path {...LINE} d="M12 3.5a3 3 0 0 1 3 3v5a3 3 0 0 1-6 0v-5a3 3 0 0 1 3-3zM6 11.5a6 6 0 0 0 12 0M12 17.5v3" />,
  history: <path {...LINE} d="M4.5 12a7.5 7.5 0 1 0 2.6-5.7L4.5 8.5M4.5 4.5v4h4M12 8v4.5l3 1.8" />,
  keys: <path {...LINE} d="M8 11.5a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM11 12.7l8.5-8.5M16 7.7l2.5 2.5M13.5 10.2l1.5 1.5" />,
  credits: <path {...LINE} d="M12 4.5c4.1 0 7.5 1.3 7.5 3s-3.4 3-7.5 3-7.5-1.3-7.5-3 3.4-3 7.5-3zM4.5 7.5v9c0 1.7 3.4 3 7.5 3s7.5-1.3 7.5-3v-9M4.5 12c0 1.7 3.4 3 7.5 3s7.5-1.3 7.5-3" />,
  settings: <path {...LINE} d="M4 7h9M17 7h3M15 5v4M4 12h3M11 12h9M9 10v4M4 17h9M17 17h3M15 15v4" />,
  search: <path {...LINE} d="M10.5 4.5a6 6 0 1 1 0 12 6 6 0 0 1 0-12zM15 15l4.5 4.5" />,
  trash: <path {...LINE} d="M4.5 7h15M9.5 7V4.5h5V7M6.5 7l.8 12.5h9.4L17.5 7M10.2 10.5v5.5M13.8 10.5v5.5" />,
  edit: <path {...LINE} d="M5 19l.8-4L15.5 5.2l3.3 3.3L9 18.2zM13.2 7.5l3.3 3.3" />,
  out: <path {...LINE} d="M13.5 4.5h-8v15h8M10 12h9.5M16 8.5l3.5 3.5-3.5 3.5" />,
  alert: <path {...LINE} d="M12 4L3 19.5h18zM12 10v4.5M12 17v.2" />,
  mail: <path {...LINE} d="M3.5 6h17v12.5h-17zM4 6.5l8 6.5 8-6.5" />,
  check: <path {...LINE} d="M5 12.5l4.5 4.5L19 7.5" />,
};

export type IconName = keyof typeof SHAPES;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg className="icon" viewBox="0 0 24 24" aria-hidden="true">
      {SHAPES[name]}
    </svg>
  );
}
